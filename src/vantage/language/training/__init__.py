"""Training a language model: the loop's parts, from prompts drawn to a step of the optimiser.

Between a token that is sampled and the optimiser stand

    Completions   tokens and log-probabilities as an engine draws them
    Sequences     rows of a prompt and what followed it
    Rollout       sequences with their rewards, and the Batch made of them: what estimators read
    Weighed       a batch with all that is counted across it: advantages, shares, targets of V
    Pass          log π, entropy and states of the rows that go through the model together; a plan,
                  `Passes`, says which, and `Packed` how completions share their prompt
    Step          what the passes before a step of the optimiser saw; metrics are made of these
    Pieces        squares and products of the gradient's pieces, of which its signal is made
"""
