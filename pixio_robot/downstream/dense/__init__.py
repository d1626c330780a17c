"""Dense heads: depth and segmentation from frozen features."""
