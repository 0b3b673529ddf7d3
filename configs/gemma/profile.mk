# The embedded Gemma-2, 1.8M parameters. Make and doctor.py read this file.
HF_MODEL := models/Gemma-2-Tiny
MODEL := models/Gemma-2-Tiny

# It is committed: nothing to download.
HF_REPO :=
DOWNLOAD_GB := 0
# Data, adapters and reports stay far below this.
DISK_GB := 1
# Python, MLX and a batch; the weights hardly count.
MEMORY_GB := 2
CPU_MEMORY_GB := 2
# "yes" where Hugging Face wants a token for HF_REPO.
GATED :=
