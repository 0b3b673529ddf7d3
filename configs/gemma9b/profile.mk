# google/gemma-2-9b-it, from the hub into its own cache at the first command. Make and doctor.py read this file.
HF_MODEL := google/gemma-2-9b-it
MODEL := google/gemma-2-9b-it

HF_REPO := google/gemma-2-9b-it
# 9.24B parameters in bfloat16.
DOWNLOAD_GB := 19
# Adapters and reports.
DISK_GB := 1
# 18.5 GB of weights, activations and the system; not yet measured.
MEMORY_GB := 32
# On a CPU the weights become float32: 37 GB, and activations.
CPU_MEMORY_GB := 48
# "yes" where Hugging Face wants a token for HF_REPO.
GATED := yes
