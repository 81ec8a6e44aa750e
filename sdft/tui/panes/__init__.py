"""The wizard's screens, one a file; each shows a draft and posts edits."""
