"""What a policy is trained on: windows, cached features, augmentation."""
