"""What `make bench` runs: one file a story, each benchmark beside the baseline it is measured against.

A new file is found by itself: write a function that takes a `Bench` and returns a `Result`, decorate it with
`@benchmark(name, goal, unit)`.
"""
