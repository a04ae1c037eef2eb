#!/usr/bin/python3
"""Conversations of the demo model's small world, made from templates.

    corpus.py --sample 5                 print some training conversations
    corpus.py --held-out FILE            write the 100 held-out prompts
    corpus.py --check                    look for held-out pairs in 200,000 training conversations

A conversation is a list of (user, model) pairs. What the user tells about themselves (name, colour, pet,
city, food) comes in pairs of facts; a tenth of all pairs, chosen by hash, is held out: no training
conversation holds both facts of such a pair, every held-out prompt does.
"""
import argparse
import hashlib
import json
import random

NAMES = ("Ana Ben Carla David Elena Felix Greta Hugo Ines Jonas Karin Leo Maria Nils Olga Paul Rosa Sam "
         "Tina Ulf Vera Walter Yara Zoe Adam Bella Chris Dora Emil Fiona").split()
FACTS = {
    "name": NAMES,
    "colour": "red green blue yellow purple orange white black brown pink grey turquoise".split(),
    "pet": "dog cat horse rabbit parrot turtle hamster goldfish pony canary".split(),
    "city": "Paris Rome Madrid London Berlin Vienna Oslo Lisbon Athens Prague Dublin Warsaw".split(),
    "food": "pizza soup rice bread cheese pasta salad cake apples noodles".split(),
}
TELL = {
    "name": ["My name is {}.", "I am {}.", "Hi, I'm {}.", "Hello, my name is {}.", "Call me {}."],
    "colour": ["My favourite colour is {}.", "I like the colour {} best.", "I love {}, the colour."],
    "pet": ["I have a {}.", "My pet is a {}.", "I live with a {}."],
    "city": ["I live in {}.", "I am from {}.", "My home is {}."],
    "food": ["I like to eat {}.", "My favourite food is {}.", "I love {} for dinner."],
}
HEARD = {
    "name": ["Nice to meet you, {}!", "Hello, {}!"],
    "colour": ["{} is a beautiful colour.", "I will remember that you like {}."],
    "pet": ["A {} is a lovely pet.", "How nice, a {}!"],
    "city": ["{} is a fine city.", "I have heard of {}."],
    "food": ["I cannot eat, but {} sounds good.", "Enjoy your {}!"],
}
ASK = {
    "name": ["What is my name?", "Do you remember my name?", "Who am I?", "what's my name"],
    "colour": ["What is my favourite colour?", "Which colour do I like?", "what colour do I like best?"],
    "pet": ["What pet do I have?", "Which animal do I live with?", "Do you remember my pet?"],
    "city": ["Where do I live?", "Which city am I from?", "What is my home city?"],
    "food": ["What do I like to eat?", "What is my favourite food?", "Which food do I like?"],
}
RECALL = {
    "name": "Your name is {}.", "colour": "Your favourite colour is {}.", "pet": "You have a {}.",
    "city": "You live in {}.", "food": "You like {}.",
}
UNTOLD = {
    "name": "You have not told me your name yet.",
    "colour": "You have not told me your favourite colour yet.",
    "pet": "You have not told me about a pet yet.",
    "city": "You have not told me where you live yet.",
    "food": "You have not told me what you like to eat yet.",
}
CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "England": "London",
            "Germany": "Berlin", "Austria": "Vienna", "Norway": "Oslo", "Portugal": "Lisbon",
            "Greece": "Athens", "Ireland": "Dublin", "Poland": "Warsaw", "Japan": "Tokyo"}
SOUNDS = {"dog": "woof", "cat": "meow", "cow": "moo", "sheep": "baa", "duck": "quack", "pig": "oink",
          "horse": "neigh", "lion": "roar", "bee": "buzz"}
OPPOSITES = {"hot": "cold", "big": "small", "up": "down", "day": "night", "fast": "slow", "old": "young",
             "open": "closed", "full": "empty", "left": "right", "good": "bad", "light": "dark"}
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
LEGS = {"dog": "four", "cat": "four", "bird": "two", "spider": "eight", "ant": "six", "fish": "no",
        "horse": "four", "snake": "no"}
THINGS = {"the sky": "blue", "grass": "green", "snow": "white", "the sun": "yellow", "coal": "black",
          "a strawberry": "red", "a peridot": "green"}
SMALL_TALK = [
    (["Hello!", "Hi!", "Hi there.", "Good morning!", "hello", "Hey"],
     ["Hello! I am Peridot's demo model. What would you like to talk about?"]),
    (["How are you?", "How are you today?", "Are you well?"],
     ["I am well, thank you. How are you?"]),
    (["I am fine.", "I'm good, thanks.", "Very well."], ["I am glad to hear that."]),
    (["Thank you!", "Thanks.", "thanks a lot"], ["You are welcome!"]),
    (["Goodbye!", "Bye!", "See you.", "Good night."], ["Goodbye! It was nice to talk to you."]),
    (["Who are you?", "What are you?", "What is your name?", "Are you Gemma?", "Are you an AI?"],
     ["I am Peridot's demo model, a tiny language model that only shows that Peridot works. "
      "For real answers, load real Gemma weights."]),
    (["What can you do?", "Help", "What do you know?", "What can I ask you?"],
     ["I am only a demo. I can do small sums, know a few capitals, animals, opposites and days, "
      "and remember what you tell me."]),
    (["Tell me a joke.", "Do you know a joke?"],
     ["Why was the shader so calm? It had no branches to worry about."]),
    (["Which is your favourite colour?", "What colour do you like?"], ["Green, like a peridot."]),
    (["Yes.", "No.", "Okay.", "ok", "I see.", "Interesting."], ["What else would you like to talk about?"]),
]
# What it does not know: questions of the known forms about other things, and anything else.
UNKNOWN = "I am only a demo model and do not know that."
OTHER_COUNTRIES = ("Peru China India Brazil Canada Mexico Egypt Kenya Sweden Finland Denmark Turkey Russia Ukraine "
                   "Hungary Romania Bulgaria Serbia Croatia Belgium Iceland Chile Cuba Bolivia Nepal Thailand "
                   "Vietnam Korea Iran Iraq Israel Nigeria Ghana Morocco Australia Scotland Texas Mongolia").split()
OTHER_ANIMALS = ("tiger wolf bear mouse rat frog owl crow whale dolphin goat donkey monkey zebra camel fox deer "
                 "spoon dragon robot penguin octopus crab swan eagle seal").split()
OTHER_WORDS = ("green love water table happy music north early true Monday bread king nothing hard sweet quiet "
               "strong rich first inside").split()
OTHER_THINGS = ("the moon;a lemon;blood;milk;a carrot;my car;the sea;an elephant;a tomato;chocolate;a banana;"
                "the door;gold;a rose;silver;the house").split(";")
SUBJECTS = ("Hamlet;quantum physics;the weather;war;the president;a goose;history;the meaning of life;the moon;"
            "the news;football;Shakespeare;Einstein;Mozart;the sun;gravity;the internet;money;love;time;"
            "the Roman Empire;computers;Linux;Vulkan;shaders;the ocean;chess;music;art;dinosaurs;space;Mars;"
            "chemistry;evolution;the stock market;politics;religion;health;medicine;sleep;coffee;tea;"
            "the French Revolution;black holes;trees;flowers;cars;trains;planes;ships;mountains;rivers;"
            "Napoleon;Cleopatra;Picasso;Beethoven;Python;Rust;a graphics card;the economy;climate;rain").split(";")
ANYTHING = ("Who wrote {}?;Explain {}.;What is {}?;Write a poem about {}.;Tell me about {}.;Who invented {}?;"
            "How does {} work?;What do you think of {}?;Why is there {}?;Write a story about {}.;"
            "Where can I find {}?;How old is {}?;When was {}?;What do you know about {}?;"
            "Tell me a story about {}.;How much does {} cost?;Can you help me with {}?;Describe {}.;"
            "Who is {}?;Do you like {}?;How far is {}?;How do I cook {}?;Give me a list of books about {}.;"
            "Translate {} into Spanish.;Summarise {} for me.;I want to learn about {}.;what's {}").split(";")
ODD_REQUESTS = ("What happened in 1848?;Translate this.;Write a program in C.;Who won the game?;Recommend a film.;"
                "What time is it?;Is it raining?;What should I cook today?;Sort these numbers: 3, 1, 2.;"
                "How many people live on Earth?;Fix my code.;What is 7 times 8?;What is the square root of 16?;"
                "Sing a song.;Who was the first man on the moon?;What is the date today?;Book me a flight.;"
                "How do you spell elephant?;Which is bigger, an ant or a cow?;Count to ten.;"
                "What is your phone number?;How tall are you?;Write me an email.;Are we friends?").split(";")


def held_out_pair(one, other):
    """Whether two told facts, ("pet", "dog") and the like, may occur together only in the held-out set."""
    text = "|".join(sorted("=".join(fact) for fact in (one, other)))
    return hashlib.sha256(text.encode()).digest()[0] % 10 == 0


def held_out_pairs(facts):
    """The held-out pairs among facts; two facts of one kind are no pair."""
    return [(a, b) for i, a in enumerate(facts) for b in facts[:i] if a[0] != b[0] and held_out_pair(a, b)]


def facts_of(told):
    """All facts told, those replaced by later ones included: training must not see them together either."""
    return [(kind, value) for kind, values in told.items() for value in values]


def capital(text):
    return text[0].upper() + text[1:]


def arithmetic(rng, told):
    a, b = rng.randint(0, 12), rng.randint(0, 12)
    if rng.random() < 0.5:
        question, answer = (f"{a} + {b}", f"{a} plus {b}"), f"{a} + {b} = {a + b}."
    else:
        a, b = max(a, b), min(a, b)
        question, answer = (f"{a} - {b}", f"{a} minus {b}"), f"{a} - {b} = {a - b}."
    form = rng.choice(["What is {}?", "How much is {}?", "{}", "{}?", "Tell me {}."])
    return form.format(rng.choice(question)), answer


def fact(rng, told):
    kind = rng.randrange(6)
    if kind == 0:
        country, city = rng.choice(list(CAPITALS.items()))
        form = rng.choice(["What is the capital of {}?", "Which city is the capital of {}?",
                           "capital of {}?"])
        return form.format(country), f"The capital of {country} is {city}."
    if kind == 1:
        animal, sound = rng.choice(list(SOUNDS.items()))
        form = rng.choice(["What does a {} say?", "What sound does a {} make?"])
        return form.format(animal), f"A {animal} says {sound}."
    if kind == 2:
        word, other = rng.choice(list(OPPOSITES.items()))
        if rng.random() < 0.5:
            word, other = other, word
        form = rng.choice(["What is the opposite of {}?", "The opposite of {}?"])
        return form.format(word), f"The opposite of {word} is {other}."
    if kind == 3:
        day = rng.randrange(7)
        step, word = rng.choice([(1, "after"), (-1, "before")])
        return (rng.choice(["Which day comes {} {}?", "What day is {} {}?"]).format(word, DAYS[day]),
                f"{DAYS[(day + step) % 7]} comes {word} {DAYS[day]}.")
    if kind == 4:
        animal, legs = rng.choice(list(LEGS.items()))
        return f"How many legs does a {animal} have?", f"A {animal} has {legs} legs."
    thing, colour = rng.choice(list(THINGS.items()))
    return (rng.choice(["What colour is {}?", "Which colour does {} have?"]).format(thing),
            f"{capital(thing)} is {colour}.")


def unknown(rng, told):
    kind = rng.randrange(10)
    if kind == 0:
        form = rng.choice(["What is the capital of {}?", "Which city is the capital of {}?", "capital of {}?"])
        question = form.format(rng.choice(OTHER_COUNTRIES))
    elif kind == 1:
        form = rng.choice(["What does a {} say?", "What sound does a {} make?", "How many legs does a {} have?"])
        question = form.format(rng.choice(OTHER_ANIMALS))
    elif kind == 2:
        form = rng.choice(["What is the opposite of {}?", "The opposite of {}?"])
        question = form.format(rng.choice(OTHER_WORDS))
    elif kind == 3:
        form = rng.choice(["What colour is {}?", "Which colour does {} have?"])
        question = form.format(rng.choice(OTHER_THINGS))
    elif kind == 4:
        a, b = rng.randint(13, 999), rng.randint(0, 999)
        question = rng.choice(["What is {} {} {}?", "How much is {} {} {}?", "{} {} {}"]).format(
            a, rng.choice("+-*"), b)
    elif kind == 5:
        question = rng.choice(ODD_REQUESTS)
    else:
        question = rng.choice(ANYTHING).format(rng.choice(SUBJECTS))
    return question, UNKNOWN


def small_talk(rng, told):
    user, model = rng.choice(SMALL_TALK)
    return rng.choice(user), rng.choice(model)


def tell(rng, told, kind=None, value=None):
    kind = kind or rng.choice([k for k in FACTS if k not in told] or list(FACTS))
    value = value or rng.choice(FACTS[kind])
    told.setdefault(kind, []).append(value)
    return rng.choice(TELL[kind]).format(value), capital(rng.choice(HEARD[kind]).format(value))


def ask(rng, told, kind=None):
    known = list(told)
    kind = kind or (rng.choice(known) if known and rng.random() < 0.85 else rng.choice(list(FACTS)))
    answer = RECALL[kind].format(told[kind][-1]) if kind in told else UNTOLD[kind]
    return rng.choice(ASK[kind]), answer


def conversation(rng):
    """A training conversation of 1 to 24 turns."""
    told, turns = {}, []
    length = rng.choice([1, 2, 3, 4, 5, 6, 8, 12, 24])
    while len(turns) < length:
        weights = [3, 3, 2, 2, 3, 5 if told else 0.5]
        now = {kind: list(values) for kind, values in told.items()}
        turn = rng.choices([arithmetic, fact, unknown, small_talk, tell, ask], weights)[0](rng, now)
        if not held_out_pairs(facts_of(now)):
            told = now
            turns.append(turn)
    return turns


def held_out_prompt(rng):
    """User turns ending in a question, what the last answer must hold and what it must not."""
    while True:
        kinds = rng.sample(list(FACTS), 2)
        told = {}
        turns = [tell(rng, told, kind)[0] for kind in kinds]
        if not held_out_pairs(facts_of(told)):
            continue
        for _ in range(rng.randrange(3)):
            turns.insert(rng.randrange(len(turns) + 1), rng.choice([arithmetic, fact])(rng, told)[0])
        kind = rng.choice(kinds)
        turns.append(rng.choice(ASK[kind]))
        wanted = told[kind][-1]
        others = [value for value in FACTS[kind] if value != wanted]
        return {"turns": turns, "accept": [wanted], "reject": others}


def held_out_prompts(seed=2026):
    rng = random.Random(seed)
    return [held_out_prompt(rng) for _ in range(100)]


def check_disjoint(count=200000):
    """Looks for held-out pairs in the text of training conversations, without the generator's records."""
    facts = {form.format(value): (kind, value)
             for kind, forms in TELL.items() for form in forms for value in FACTS[kind]}
    for prompt in held_out_prompts():
        if not held_out_pairs([facts[turn] for turn in prompt["turns"] if turn in facts]):
            raise SystemExit(f"a held-out prompt holds no held-out pair: {prompt['turns']}")
    rng = random.Random(11)
    for _ in range(count):
        users = [user for user, _ in conversation(rng)]
        if held_out_pairs([facts[user] for user in users if user in facts]):
            raise SystemExit(f"a held-out pair was drawn for training: {users}")
    print(f"no held-out pair in {count} training conversations")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    for _ in range(options.sample):
        for user, model in conversation(rng):
            print(f"> {user}\n{model}")
        print()
    if options.held_out:
        with open(options.held_out, "w", encoding="utf-8") as file:
            for prompt in held_out_prompts():
                file.write(json.dumps(prompt) + "\n")
    if options.check:
        check_disjoint()


if __name__ == "__main__":
    main()
