"""The mini world: small benchmarks in the official schemas, and the tiny models that know them; the offline default."""
