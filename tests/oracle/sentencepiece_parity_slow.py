"""sentencepiece_parity on 10 MB of text per kind."""

from sentencepiece_parity import main

if __name__ == "__main__":
    main(text_bytes=10_500_000)
