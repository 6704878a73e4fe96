"""The two tasks of tiny-qwen3.5: arithmetic word problems with worked steps,
and recall of one fact among others, hidden in prose.

Every function draws from the random.Random it is given, so a seed fixes a set.
"""

import json

NAMES = ("Anna Ben Carla David Emma Felix Grace Henry Irene Jack Karen Leo Maria Nina Oscar Paula "
         "Quinn Rosa Sam Tina Victor Wendy Yusuf Zoe").split()
ITEMS = "apples pencils books stamps marbles cookies shells coins cards roses stickers bottles".split()
PLACES = ("Paris Rome Cairo Lima Oslo Delhi Tokyo Quito Dublin Lagos Hanoi Malta Bern Prague Sofia "
          "Riga Tunis Havana").split()


def gain(rng, count, name, other, item):
    more = rng.randint(3, 99)
    sentence = rng.choice([
        f"{name} buys {more} more {item}.",
        f"{other} gives {name} {more} {item}.",
        f"{name} finds {more} {item}.",
    ])
    return sentence, [f"{count} + {more} = {count + more}"], count + more


def loss(rng, count, name, other, item):
    less = rng.randint(2, min(99, count - 1))
    sentence = rng.choice([
        f"{name} gives {less} {item} to {other}.",
        f"{name} loses {less} {item}.",
        f"{name} sells {less} of them.",
    ])
    return sentence, [f"{count} - {less} = {count - less}"], count - less


def growth(rng, count, item):
    times = rng.choice([2, 3, 4])
    sentence = f"Then the number of {item} becomes {times} times as large."
    return sentence, [f"{count} * {times} = {count * times}"], count * times


def share(rng, count, name, item):
    """None when the count divides by none of the box numbers."""
    for boxes in rng.sample([2, 3, 5], 3):
        if count % boxes == 0 and count // boxes > 1:
            sentence = f"{name} shares the {item} equally among {boxes} boxes and keeps one box."
            return sentence, [f"{count} / {boxes} = {count // boxes}"], count // boxes
    return None


def bags(rng, count, other, item):
    number, each = rng.randint(2, 9), rng.randint(2, 9)
    sentence = f"{other} brings {number} bags with {each} {item} each."
    steps = [f"{number} * {each} = {number * each}", f"{count} + {number * each} = {count + number * each}"]
    return sentence, steps, count + number * each


def next_event(rng, count, name, other, item):
    """(sentence, worked steps, new count), or None where nothing happens."""
    kind = rng.randint(0, 4)
    if kind == 0:
        return gain(rng, count, name, other, item)
    if kind == 1 and count > 5:
        return loss(rng, count, name, other, item)
    if kind == 2 and count < 120:
        return growth(rng, count, item)
    if kind == 3:
        return share(rng, count, name, item)
    return bags(rng, count, other, item)


def problem(rng):
    """(question, worked answer that ends in '#### N', N)."""
    while True:
        name, other = rng.sample(NAMES, 2)
        item = rng.choice(ITEMS)
        count = rng.randint(11, 99)
        sentences = [f"{name} has {count} {item}."]
        steps = []
        for _ in range(rng.choice([1, 2, 2, 3])):
            event = next_event(rng, count, name, other, item)
            if event is not None:
                sentence, lines, count = event
                sentences.append(sentence)
                steps += lines
        if steps:
            question = " ".join(sentences) + f" How many {item} does {name} have now?"
            return question, "\n".join(steps) + f"\n#### {count}", count


def recall(rng, filler, n_facts, n_filler):
    """(question, answer, number): n_facts facts among n_filler sentences, which
    filler(n) returns; one of the facts is asked for."""
    keys = rng.sample([(name, place) for name in NAMES for place in PLACES], n_facts)
    numbers = {key: rng.randint(10000, 99999) for key in keys}
    sentences = list(filler(n_filler))
    for (name, place), number in numbers.items():
        fact = f"The secret number of {name} in {place} is {number}."
        sentences.insert(rng.randint(0, len(sentences)), fact)
    name, place = rng.choice(keys)
    number = numbers[name, place]
    question = " ".join(sentences) + f"\nWhat is the secret number of {name} in {place}?"
    return question, f"The secret number of {name} in {place} is {number}.", number


def chat(question, answer=None):
    """The chat template of the model, written out."""
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return prompt if answer is None else f"{prompt}{answer}<|im_end|>\n"


def write_questions(path, rows):
    """rows: (question, answer, value) triples, one JSON object per line."""
    with open(path, "w", encoding="utf-8") as file:
        for question, answer, value in rows:
            file.write(json.dumps({"question": question, "answer": answer, "value": str(value)}) + "\n")
