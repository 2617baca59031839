"""The read side: read models with their SQL, the follower that fills them, and the measurements."""
