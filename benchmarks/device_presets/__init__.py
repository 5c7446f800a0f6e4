"""Published times of fine-tuning steps, and how well one step of a device predicts its others."""
