"""The fixed stock of the sample world: products, names, cities, devices. No draws by seed here."""

from random import Random
from typing import Any

FIRST_NAMES = (
    "Ada Alan Amira Ben Carla Chen Dana Elif Emil Farah Felix Grace Hana Hugo Ines Ivan Jonas "
    "Jun Karin Lena Leo Lina Luca Mara Milo Nadia Nils Nora Omar Otto Paula Priya Rosa Sami "
    "Sofia Theo Tom Vera Yara Zoe"
).split()
LAST_NAMES = (
    "Abbas Adler Bauer Becker Costa Dubois Fischer Garcia Green Haas Hansen Ito Jansen Kaya "
    "Keller Khan Kim Kowalski Lang Lopez Marino Meyer Moreau Nguyen Novak Okafor Olsen Park "
    "Patel Reed Rossi Roy Schulz Silva Singh Smith Tanaka Vogel Walker Weber Wolf Young"
).split()
MAIL_DOMAINS = ("mail.example", "post.example", "inbox.example", "letters.example")
CITIES = (
    ("Berlin", "EUR"),
    ("Hamburg", "EUR"),
    ("Vienna", "EUR"),
    ("Paris", "EUR"),
    ("Madrid", "EUR"),
    ("London", "GBP"),
    ("Leeds", "GBP"),
    ("New York", "USD"),
    ("Austin", "USD"),
)
COMPANIES = (
    "Harbour Supplies|Alder Works|Blue Door Cafes|Cobalt Studio|Delta Freight|Elm Street Clinics|"
    "Fjord Hotels|Granite Tools|Hill & Sons|Indigo Labs|Juniper Schools|Kiln Ceramics|"
    "Lantern Books|Maple Catering|North Pier Boats|Olive & Oak|Pine Logistics|Quarry Stone|"
    "River Dental|Summit Sports"
).split("|")
INDUSTRIES = ("retail", "hospitality", "logistics", "health", "education", "software")
USER_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/143.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/18.3 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:146.0) Gecko/20100101 Firefox/146.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_3 like Mac OS X) Version/18.3 Mobile Safari/604.1",
)
PHONES = {
    "ios": ("iPhone14,5", "iPhone15,2", "iPhone16,1"),
    "android": ("Pixel 8", "SM-S921B", "23078PND5G"),
}

# Category, its typical price, its things.
_SHELVES = (
    ("coffee", 14.0, "Espresso Blend|House Roast|Decaf|Cold Brew Kit|Pour Over Set|Grinder"),
    ("kitchen", 45.0, "Chef Knife|Cast Iron Pan|Cutting Board|Stock Pot|Kettle|Toaster"),
    ("garden", 32.0, "Pruning Shears|Raised Bed|Hose|Seed Box|Watering Can|Gloves"),
    ("lighting", 85.0, "Desk Lamp|Floor Lamp|Pendant|String Lights|Wall Light|Lantern"),
    ("textiles", 38.0, "Throw|Cushion|Towel Set|Bed Linen|Rug|Curtain"),
    ("furniture", 210.0, "Oak Stool|Side Table|Bookcase|Lounge Chair|Bench|Desk"),
    ("toys", 24.0, "Building Blocks|Puzzle|Kite|Train Set|Board Game|Plush Fox"),
    ("outdoor", 75.0, "Tent|Sleeping Bag|Camp Stove|Backpack|Headlamp|Hammock"),
)


def _products() -> list[dict[str, Any]]:
    random = Random("catalogue")
    found: list[dict[str, Any]] = []
    for category, typical, things in _SHELVES:
        for thing in things.split("|"):
            for make in ("Classic", "Pro"):
                number = len(found) + 1
                price = typical * random.lognormvariate(0.0, 0.35) * (1.6 if make == "Pro" else 1)
                found.append(
                    {
                        "product_id": f"p_{number:03}",
                        "sku": f"{category[:3].upper()}-{number:04}",
                        "name": f"{thing} {make}",
                        "category": category,
                        "price": round(round(price) - 0.01, 2),
                    }
                )
    return found


PRODUCTS = _products()
CATEGORIES = tuple(name for name, _, _ in _SHELVES)
