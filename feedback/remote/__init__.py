"""Where rows are carried to: a private dataset, a bucket, or nowhere, behind one Protocol."""
