"""One file a type of feedback: `elicit` draws it, `loss` is its negative log-likelihood."""
