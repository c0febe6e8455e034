"""Real feedback in and out: one row per answer, importers, exporters, TFDS builders.

file --read_rows--> rows --write_rows--> file        (convert, formats/)
                    rows --build--> array_record --source--> grain batches
"""
