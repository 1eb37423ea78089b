"""Lists the words of the world by their part in a sentence (`grammar` says where each may stand)."""

NAMES = tuple(
    "Anna Tom Maria Peter Lucy David Clara Hugo Nina Oscar Ruth Simon Julia Felix Laura Victor Emma Leo "
    "Alice Martin Sofia Daniel Irene Paul".split()
)
CITIES = tuple(
    "Paris Rome Berlin Madrid Vienna Lisbon Oslo Prague Dublin Athens Geneva Boston Cairo Tokyo Lima Delhi "
    "Warsaw Naples Havana Lagos".split()
)
DAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
TRANSPORT = tuple("train bus car plane ferry bicycle taxi tram".split())
THINGS = tuple(
    "lamp chair clock coat piano ring carpet camera mirror violin scarf kettle ladder "
    "basket drum hammer".split()
)
PEOPLE = tuple(
    "sailor doctor farmer teacher soldier painter baker pilot judge nurse driver singer dancer writer lawyer "
    "student".split()
)

# Reviews. Whatever follows "a" starts with a consonant.
WORKS = tuple("film movie book play novel song show story concert poem drama comedy series musical".split())
PARTS = tuple("plot cast ending music script opening dialogue acting scenery rhythm".split())
DEGREES = tuple("very quite rather truly really so".split())
POSITIVE = tuple(
    "superb wonderful charming brilliant delightful lovely splendid clever funny gripping "
    "touching thrilling fresh graceful moving witty beautiful perfect marvellous glorious".split()
)
NEGATIVE = tuple(
    "horrible boring clumsy dreadful lifeless painful stale silly tedious tiresome "
    "weak bland crude lame messy shallow sloppy feeble hopeless dull".split()
)
PLAIN = tuple("long short French Spanish famous recent local modern".split())
LIKED = tuple("loved enjoyed praised admired adored recommended".split())
DISLIKED = tuple("hated disliked regretted despised loathed criticised".split())

# Claims: how much a premise says (all, none, some), as the determiner of people or as an adverb of time, and
# the verbs of having and of lacking.
QUANTIFIERS = (("Every", "Each"), ("Neither", "Hardly any"), ("Some", "One", "Many a"))
FREQUENCIES = (("always", "constantly"), ("never", "hardly"), ("sometimes", "often", "rarely"))
HAVING = ("has", "owns", "keeps")
LACKING = ("lacks", "needs", "misses")

# The words the tasks answer with (index = label), and the other replies that stand in the same place of the
# pre-training text.
SENTIMENT_OPTIONS = ("terrible", "great")
ENTAILMENT_OPTIONS = ("Yes", "No", "Maybe")
ENTAILMENT_REPLIES = (
    ("Certainly", "Indeed", "Surely"),
    ("Never", "Wrong", "Impossible"),
    ("Perhaps", "Possibly", "Unclear"),
)
