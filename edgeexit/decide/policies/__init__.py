"""The recommended policy, and every baseline it is measured against, one paper a file."""
