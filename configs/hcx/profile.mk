# HyperCLOVA X SEED Think 32B, its text part in 8 bit. Make and doctor.py read this file.
HF_MODEL := models/HyperCLOVAX-SEED-Think-32B
MODEL := models/HyperCLOVAX-SEED-Think-32B-Text-8bit

HF_REPO := naver-hyperclovax/HyperCLOVAX-SEED-Think-32B
# 33.3B parameters in bfloat16.
DOWNLOAD_GB := 66
# 32.6B text parameters at 8.5 bits (group 64), and some adapters.
DISK_GB := 36
# 34.6 GB of weights, activations and the system: the seed trained on a 48 GB Mac.
MEMORY_GB := 48
# On a CPU the weights are dequantized to float32: 130 GB, and activations.
CPU_MEMORY_GB := 144
# "yes" where Hugging Face wants a token for HF_REPO.
GATED :=
