"""
Short stories whose later words are determined by what happened earlier.

A story is a list of sentences of three kinds: a *fact* binds two of person, thing and place ("Mia put the
lamp in the attic."), a *recall* sentence names one side of a fact and makes the other side certain ("Tom
needed the lamp, so he went to the attic."), a *distractor* touches no fact. Within one story no thing and no
place occurs in two facts, and nobody is the hero of two, so every recalled word has exactly one right answer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

# Written into templates straight after a recalled word; it never reaches a corpus.
RECALL_MARK = "|"
TOKEN = re.compile(r"\w+|[^\w\s]+")  # the rule of the Whitespace pre-tokenizer of `tokenizers`


def words(text: str) -> tuple[str, ...]:
    """The space-separated words of *text*."""
    return tuple(text.split())


SHE = words(
    """
    Mia Anna Clara Ella Emma Greta Hanna Ida Jana Klara Lena Lily Lucy Maria Nora Olga Paula Rosa Sara
    Tina Vera Wanda Yara Zoe
    """
)
HE = words(
    """
    Tom Adam Anton Ben Carl David Emil Felix Finn George Hugo Jacob Jonas Karl Leo Lukas Max Noah Oscar
    Paul Peter Samuel Simon Victor
    """
)
THINGS = words(
    """
    lamp drum kite rope bucket basket blanket candle hammer ladder mirror violin ball book bottle box
    brush button cup coin clock coat comb compass crown cushion doll feather flag flute fork glove guitar
    hat helmet jacket jar jug key knife letter map mask medal needle net notebook paddle painting pan
    parcel pen pencil pillow plate purse puzzle radio ribbon ring saw scarf shell shirt shoe shovel spoon
    stamp statue stone suitcase sword teapot telescope ticket torch towel trumpet tray vase wallet watch
    wheel whistle wig
    """
)
PLACES = {
    "in": words(
        """
        attic cellar kitchen garden barn stable tower cave chapel tent cabin hall pantry library garage
        bathroom bakery forest valley meadow orchard shed mill castle school cottage
        """
    ),
    "on": words("shelf roof table porch balcony hill bridge beach stage terrace island raft"),
    "under": words("bed stairs bench sofa oak"),
    "behind": words("church fence hedge curtain fountain"),
    "at": words("well harbor station market lake gate"),
}
PREPOSITION_OF = {place: preposition for preposition, places in PLACES.items() for place in places}
ADJECTIVES = words("red blue green yellow round new small big heavy pretty broken shiny dusty wooden")
FOODS = words("bread soup cheese rice cake porridge honey jam fish beans")
ANIMALS = words("dog cat fox goat horse rabbit duck cow goose mouse")
WEATHER = words("rain snow thunder drizzle")
SONGS = words("sad merry long quiet loud funny")
WHEN = (
    "in the morning",
    "after lunch",
    "before noon",
    "at dawn",
    "at once",
    "on Sunday",
    "on Friday",
    "with care",
)
OPENINGS = (
    "Later",
    "Then",
    "After a while",
    "The next day",
    "In the evening",
    "Soon",
    "At last",
    "Meanwhile",
)

# {h} is the hero of a fact, {them} stands for the hero, {a} and {b} are two other persons, {he} stands for
# {b}, {t} is the thing, {p} the place, {at} its preposition.
# WHY three or four tokens between the halves of a fact: a small model can bind them with one head per distance. With
# free distances it learnt recall too slowly for a demo.
PUT_FACTS = (
    "{a} put the {t} {at} the {p}.",
    "{a} put the {adj} {t} {at} the {p} {when}.",
    "{a} left the {t} {at} the {p}.",
    "{a} left the {adj} {t} {at} the {p}.",
    "{a} hid the {adj} {t} {at} the {p}.",
    "{a} carried the {t} to the {p}.",
)
PUT_RECALLS = (
    "{b} needed the {t}, so {he} went to the {p}|.",
    "{b} looked for the {t} and found it {at} the {p}|.",
    "{b} went to fetch the {t} from the {p}|.",
    "{b} saw the {t} {at} the {p}|.",
    "{b} cleaned the {t} {at} the {p}| {when}.",
    "The {t} was still {at} the {p}|.",
    "Nobody had moved the {t} from the {p}|.",
    "{b} went to the {p} and came back with the {t}|.",
    "{b} searched the {p} and picked up the {t}| {when}.",
)
STAY_FACTS = (
    "{h} worked {at} the {p}.",
    "{h} stayed {at} the {p} all day.",
    "{h} slept {at} the {p}.",
    "{h} waited {at} the {p} {when}.",
)
STAY_RECALLS = (
    "{b} wanted to see {h}, so {he} went to the {p}|.",
    "{h} was still {at} the {p}|.",
    "{b} looked for {h} and met {them} {at} the {p}|.",
    "{b} visited {h} {at} the {p}|.",
    "{b} stopped at the {p} and greeted {h}| {when}.",
)
WISH_FACTS = (
    "{h} wished for a {t}.",
    "{h} dreamed of a {t}.",
    "{h} asked for a {t} {when}.",
    "{h} hoped for a {t}.",
)
WISH_RECALLS = (
    "{h} still wished for the {t}|.",
    "{b} remembered {h} and bought the {t}|.",
    "To please {h}, {b} made a {t}| {when}.",
    "{b} gave {h} the {t}|.",
    "{b} found a {t} and gave it to {h}|.",
)
DISTRACTORS = (
    "{a} ate {food} with {b}.",
    "{a} cooked {food} and {food2} {when}.",
    "The {animal} chased the {animal2}.",
    "The {animal} was hungry and {b} gave it some {food}.",
    "It began to {weather}.",
    "{a} sang a {song} song.",
    "{a} told {b} a {song} story {when}.",
    "{a} and {b} laughed.",
    "{a} was tired.",
    "A {adj} {animal} looked at {a}.",
)
KINDS = {
    "put": (PUT_FACTS, PUT_RECALLS),
    "stay": (STAY_FACTS, STAY_RECALLS),
    "wish": (WISH_FACTS, WISH_RECALLS),
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One binding of a story; the fields its kind does not use hold spare words that no other fact uses."""

    kind: str
    """put, stay or wish"""
    hero: str
    thing: str
    place: str


class Story:
    """A story that grows by one sentence at a time, with its facts and the words that are not used yet."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        people = rng.sample(SHE + HE, 12)
        self._cast, self._heroes = people[:4], people[4:]
        self._things = rng.sample(THINGS, 40)
        self._places = rng.sample(sorted(PREPOSITION_OF), 40)
        self._facts: list[Fact] = []
        self._n_live_facts = rng.randint(4, 7)  # older facts are never recalled again
        self._last_recalled: Fact | None = None
        self.n_facts_before: list[int] = []  # per sentence
        self.sentences: list[str] = []  # recall marks included

    @property
    def marked_text(self) -> str:
        """The story so far, recall marks included."""
        return " ".join(self.sentences)

    def add_sentence(self) -> None:
        """Append a fact, a recall sentence or a distractor, drawn at random."""
        self.n_facts_before.append(len(self._facts))
        draw = self._rng.random()
        if not self._facts or draw < (0.6 if len(self._facts) == 1 else 0.3):
            self._last_recalled = None
            self.sentences.append(self._new_fact())
        elif draw < 0.88:
            live = self._facts[-self._n_live_facts :]
            fact = self._rng.choice([fact for fact in live if fact is not self._last_recalled] or live)
            self._last_recalled = fact
            template = self._rng.choice(KINDS[fact.kind][1])
            self.sentences.append(self._open(self._fill(template, fact)))
        else:
            template = self._rng.choice(DISTRACTORS)
            self.sentences.append(self._fill(template, self._facts[-1]))

    def cuts(self) -> list[str]:
        """The story up to each recalled word that has a competitor, since two facts precede its sentence."""
        cuts = []
        for index in range(len(self.sentences)):
            if self.n_facts_before[index] >= 2 and RECALL_MARK in self.sentences[index]:
                head = self.sentences[index].partition(RECALL_MARK)[0]
                cuts.append(published(" ".join([*self.sentences[:index], head])))
        return cuts

    def _new_fact(self) -> str:
        kind = self._rng.choice(("put", "put", "wish", "stay") if self._heroes else ("put",))
        hero = self._heroes.pop() if kind != "put" else self._cast[0]
        fact = Fact(kind, hero, self._things.pop(), self._places.pop())
        self._facts.append(fact)
        return self._fill(self._rng.choice(KINDS[kind][0]), fact)

    def _open(self, sentence: str) -> str:
        """Put an adverbial before some of the sentences that start with a name."""
        if sentence.startswith(("The ", "To ", "Nobody ")) or self._rng.random() < 0.6:
            return sentence
        return f"{self._rng.choice(OPENINGS)} {sentence}"

    def _fill(self, template: str, fact: Fact) -> str:
        rng = self._rng
        a, b = rng.sample(self._cast, 2)
        animal, animal2 = rng.sample(ANIMALS, 2)
        food, food2 = rng.sample(FOODS, 2)
        return template.format(
            a=a,
            b=b,
            h=fact.hero,
            he="she" if b in SHE else "he",
            them="her" if fact.hero in SHE else "him",
            t=fact.thing,
            p=fact.place,
            at=PREPOSITION_OF[fact.place],
            adj=rng.choice(ADJECTIVES),
            when=rng.choice(WHEN),
            food=food,
            food2=food2,
            animal=animal,
            animal2=animal2,
            weather=rng.choice(WEATHER),
            song=rng.choice(SONGS),
        )


def published(marked: str) -> str:
    """The text of a story without its recall marks."""
    return marked.replace(RECALL_MARK, "")


def n_tokens(text: str) -> int:
    """Number of tokens of *text*, recall marks and BOS not counted."""
    return len(TOKEN.findall(published(text)))


def recalled_tokens(marked: str) -> list[int]:
    """Indices of the recalled words of a marked story, in tokens; BOS, where there is one, is not counted."""
    before = accumulate(n_tokens(piece) for piece in marked.split(RECALL_MARK)[:-1])
    return [n - 1 for n in before]


def marked_stories(seed: int, *, min_tokens: int) -> Iterator[str]:
    """Endless stories of at least *min_tokens* tokens each, with their recall marks."""
    rng = random.Random(seed)
    while True:
        story = Story(rng)
        length = 0
        while length < min_tokens:
            story.add_sentence()
            length += n_tokens(story.sentences[-1])
        yield story.marked_text


def last_word_passages(seed: int, *, min_tokens: int, max_tokens: int) -> Iterator[str]:
    """
    Endless beginnings of stories, cut straight after a recalled word.

    Each has between *min_tokens* and *max_tokens* tokens, BOS not counted.
    """
    rng = random.Random(seed)
    while True:
        story = Story(rng)
        while n_tokens(story.marked_text) < max_tokens:
            story.add_sentence()
        fitting = [cut for cut in story.cuts() if min_tokens <= n_tokens(cut) <= max_tokens]
        if fitting:
            yield rng.choice(fitting)
