"""Facts about image and caption files: what there is, which words, which bucket, which pixels."""
