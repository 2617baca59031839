"""The sandbox: a stand-in ESM partner and simulated plants, for newcomers, partners and tests (esm.md, The sandbox)."""
