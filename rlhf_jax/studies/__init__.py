"""What runs a study and what it ends in: runs, numbers, verdicts, pages.

plan     the runs that a study is made of            runs     makes them
results  their files → [points, seeds] arrays        verdicts what the numbers say
tables · figures · page · index                      what is read in the end
overoptimisation                                     gold and proxy against √KL, with laws
"""
