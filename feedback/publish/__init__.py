"""The public dataset: which rows, in which form, to which repository."""
