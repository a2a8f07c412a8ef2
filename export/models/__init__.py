"""The plain PyTorch modules of a Video2Act policy; `policy.Video2ActPolicy` puts them together."""
