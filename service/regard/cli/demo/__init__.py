"""`regard demo`: the whole way from a models directory to attention on the screen, measured."""
