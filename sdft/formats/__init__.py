"""What files say, read without torch: tensor files, safe pickles, CLIP's tokens."""
