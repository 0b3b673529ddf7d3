# The embedded model, 2M text parameters, in the file layout of the 32B. Make and doctor.py read this file.
HF_MODEL := models/HyperCLOVAX-SEED-Think-Tiny
MODEL := models/HyperCLOVAX-SEED-Think-Tiny-Text-8bit

# It is committed: nothing to download.
HF_REPO :=
DOWNLOAD_GB := 0
# A converted model, data, adapters and reports stay far below this.
DISK_GB := 1
# Python, MLX and a batch; the weights hardly count.
MEMORY_GB := 2
CPU_MEMORY_GB := 2
# "yes" where Hugging Face wants a token for HF_REPO.
GATED :=
