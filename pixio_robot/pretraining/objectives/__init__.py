"""What pretraining minimises: reconstruction, distillation."""
