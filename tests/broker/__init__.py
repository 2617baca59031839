"""What every broker must do, proved on each; and what only a real one can suffer."""
