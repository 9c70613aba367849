"""Tokenizers that a reader can follow: one token per word, or per letter."""

BOS = 0


class WordTokenizer:
    """One token per word, in order of first appearance; 0 is BOS, EOS and padding (GPT-2's case), 1 is <unk>."""

    bos_token_id = eos_token_id = BOS
    all_special_ids = (BOS, 1)

    def __init__(self, *unknown):
        self.unknown = unknown
        self.ids = {}

    def __call__(self, text, **kwargs):
        assert kwargs == {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        return {"input_ids": [self._id(word) for word in text.split()]}

    def _id(self, word):
        return 1 if word in self.unknown else self.ids.setdefault(word, 2 + len(self.ids))


class LetterTokenizer(WordTokenizer):
    """One token per letter: answers of several tokens."""

    def __call__(self, text, **kwargs):
        return super().__call__(" ".join(text.replace(" ", "_")), **kwargs)
