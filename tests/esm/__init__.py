"""Tests of the ESM adapter, its address guard and the sandbox that it talks to."""
