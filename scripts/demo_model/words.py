"""Word lists that the corpus draws from. All plain ASCII except `SYMBOLS`."""

import random

NOUNS = """
apple arrow baker ball banana band barn basket bath beach bean bear bed bee bell berry bird blanket boat bone book
boot bottle bowl box branch bread brick bridge broom brush bucket button cabin cable cake camel camera candle cap car
carpet castle cat chain chair cheese cherry chicken circle city clock cloud coat coffee coin comb cookie corn cow crab
cream crown cup curtain dentist desert desk dog dolphin donkey door dragon dress drum duck eagle ear egg elbow engine
farm farmer feather fence field finger fire fish flag floor flower flute forest fork fountain fox friend frog fruit
garden gate ghost giant glass glove goat gold goose grape grass guitar hammer hand harbour hat head heart hill honey
horse house ice idea ink iron island jacket jar jelly judge juice kettle key king kitchen kite knee knife ladder lake
lamp leaf lemon letter library light lion lizard lock lunch machine map market mask meadow milk mirror model monkey
moon morning mountain mouse music nail neck needle nest night noodle nose notebook nurse oak ocean onion orange oven
owl paint palace pan paper park peach pear pencil pepper piano picture pillow pilot pin planet plate plum pocket poem
pond pot potato present prince printer pumpkin puppy queen rabbit radio rain rice ring river road robot rock roof room
root rope rose ruler sailor salad salt sand scarf school scissors sea seed server shadow sheep ship shirt shoe shop
shoulder sky snake snow soap sock sofa song soup spider spoon spring squirrel stairs star station stone storm story
stove street sugar summer sun sweater table tail tea teacher tent test thread thumb ticket tiger toast token tomato
tooth towel tower town toy train tree truck tulip turtle umbrella valley village violin wagon wall watch water wave
whale wheel wind window wing winter wolf wood wool word yard year zebra
""".split()

VERBS_AND_QUALITIES = """
ask bake begin bend bite blow break bring build buy call carry catch choose clean climb close come cook cut dance dig
draw dream drink drive eat fall feed feel find fix fly fold follow forget give grow hear help hide hold hope jump keep
kick know laugh learn leave lift listen live look lose love make meet move open paint pay pick plant play pull push
put read rest ride run save sell send sew share shout show sing sit sleep smile speak stand start stay stop study swim
take talk teach tell thank think throw touch travel try turn visit wait wake walk want wash wear win work write
angry bad big blue bold brave bright broken brown busy calm clever cold cool dark deep dry early easy empty fast fine
full funny good gray great green happy hard heavy high hot hungry kind large late lazy light little long loud lucky
new nice old open orange pink plain poor pretty proud purple quick quiet ready red rich right round sad sharp short shy
silent silver simple slow small soft strong sweet tall thin tiny tired warm weak wet white wide wild wise young yellow
hello world python stream batch cache queue job worker engine prompt token zero one two three four five six seven eight
nine ten eleven twelve north south east west left again always away before never often soon today tomorrow yesterday
""".split()

FUNCTION_WORDS = """
the a an this that these those is are was were be been am has have had do does did not no yes and or but if then so as
of in on at to for from by with about over under after into through between i you he she it we they me him her them us
my your his our their its who whom whose which what when where why how can could will would should may must might let
it's don't can't isn't very too also only just there here all some any each every both many much more most few than
please thanks say sentence something nothing everything people fox jumps over lazy dog quick brown
""".split()

NAMES = """
Ada Adam Aisha Alan Alice Alma Amir Anna Ben Bob Carol Chen Chris Clara Dana David Diego Elena Ella Emil Emma Erik Eva
Felix Finn Frank Gina Grace Hana Hugo Ida Igor Ines Ivan Jack Jane Jonas Julia Karl Kate Kim Lara Lena Leo Liam Lily
Linda Linus Lucas Lucy Luis Maria Mark Marta Max Maya Mia Mila Mina Nadia Nina Noah Nora Olga Oliver Omar Oscar Otto
Paul Pedro Peter Petra Priya Ravi Rita Robin Rosa Ruth Sam Sara Simon Sofia Sven Tara Theo Tim Tina Tom Uma Vera Victor
Wanda Will Yara Yuki Zoe John Mary
""".split()

CITIES = [
    *"""
Accra Algiers Amsterdam Ankara Athens Auckland Baku Bangkok Barcelona Beijing Belgrade Berlin Bern Bogota Bologna Boston
Bremen Brussels Budapest Cairo Calgary Caracas Chicago Cologne Copenhagen Dakar Dallas Delhi Denver Dresden Dublin
Edinburgh Florence Frankfurt Geneva Genoa Glasgow Hamburg Hanoi Havana Helsinki Houston Istanbul Jakarta Kyoto Lagos
Leipzig Lima Lisbon London Lyon Madrid Manila Melbourne Miami Milan Montreal Moscow Mumbai Munich Nairobi Naples Nice
Osaka Oslo Ottawa Oxford Palermo Paris Perth Porto Prague Quito Reykjavik Riga Rome Rotterdam Salzburg Santiago Seattle
Seoul Seville Shanghai Singapore Sofia Stockholm Sydney Tallinn Tbilisi Tokyo Toronto Tunis Turin Utrecht Valencia
Vancouver Venice Vienna Vilnius Warsaw Zagreb Zurich
""".split(),
    "New York",
    "San Francisco",
    "Los Angeles",
    "Hong Kong",
    "Cape Town",
    "Mexico City",
    "Buenos Aires",
    "Tel Aviv",
]

COLOURS = "red blue green yellow orange purple pink brown black white".split()
ANIMALS = "cat dog horse cow sheep fox bear lion owl frog".split()
FRUITS = "apple banana cherry grape lemon melon orange peach pear plum".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December".split()
)
NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()

# Letters and signs that are several bytes in UTF-8, so that copying them crosses token borders.
SYMBOLS = [
    *"äöüßéèêñçøåæłžšőğ",
    *"αβγδλπΩжшюяд",
    *"日本語中文你好世界水火山",
    *"👋😀😊🎉🚀🐱🐶🦊🌍🌞⭐❤🔥👍🍎🍌🎵✨✅",
    *["café", "naïve", "Zürich", "señor", "привет", "こんにちは", "안녕", "→", "€", "°"],
]

ALL_WORDS = list(dict.fromkeys(NOUNS + VERBS_AND_QUALITIES))

_ONSETS = "b c d f g h j k l m n p r s t v w z ch sh st tr br pl".split()
_VOWELS = "a e i o u a e i o ai ee oo ou".split()
_ENDINGS = ["", "", "", "n", "r", "s", "t", "l", "m", "nd"]


def invented_word(rng: random.Random) -> str:
    """A pronounceable word of two or three syllables that is (almost surely) in no list."""
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(2, 3)))
    return "".join(syllables) + rng.choice(_ENDINGS)


def any_word(rng: random.Random) -> str:
    """A listed word (65 %) or an invented one."""
    return rng.choice(ALL_WORDS) if rng.random() < 0.65 else invented_word(rng)


def any_name(rng: random.Random) -> str:
    """A listed first name (75 %) or an invented one."""
    return rng.choice(NAMES) if rng.random() < 0.75 else invented_word(rng).capitalize()


def any_city(rng: random.Random) -> str:
    """A listed city (75 %) or an invented one."""
    return rng.choice(CITIES) if rng.random() < 0.75 else invented_word(rng).capitalize()


def any_text(rng: random.Random, low: int, high: int) -> str:
    """`low` to `high` words, function words as often as the others, no sense."""
    return " ".join(_text_word(rng) for _ in range(rng.randint(low, high)))


def _text_word(rng: random.Random) -> str:
    if rng.random() < 0.45:
        return rng.choice(FUNCTION_WORDS)
    return any_word(rng)
