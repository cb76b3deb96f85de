"""A person's preferred strength: likelihoods, posterior, choice of pages, decision."""
