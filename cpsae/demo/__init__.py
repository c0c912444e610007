"""What `cpsae demo` runs on: a small language model that this project trained, and its corpus."""
