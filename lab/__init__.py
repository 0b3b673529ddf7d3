"""What two or more commands share. Nothing in here imports a command."""
