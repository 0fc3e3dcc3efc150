"""Everything on a GPU: parity with eager PyTorch there, the service, and speed beside Transformers and the memory."""
