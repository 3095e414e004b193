import pytest

from tracardi_lite.pipeline.user_agent import UserAgent, describe, is_bot

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0.0.0 Safari/537.36"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)
GALAXY = (
    "Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/124.0.0.0 Mobile Safari/537.36"
)
TABLET = (
    "Mozilla/5.0 (Linux; Android 13; SM-X700) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36"
)
MAC = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.4 Safari/605.1.15"
)
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


def test_a_desktop_browser_is_described_as_the_protocol_shows() -> None:
    assert describe(CHROME) == UserAgent(
        os="Linux", type="pc", app="Chrome", app_version="125.0.0", app_type="browser", touch=False, bot=False
    )


@pytest.mark.parametrize(
    ("text", "os", "device", "brand", "type", "touch", "app"),
    [
        (IPHONE, "iOS", "iPhone", "Apple", "mobile", True, "Mobile Safari"),
        (GALAXY, "Android", "Samsung SM-S918B", "Samsung", "mobile", True, "Chrome Mobile"),
        (TABLET, "Android", "SM-X700", "Generic_Android_Tablet", "tablet", True, "Chrome"),
        (MAC, "Mac OS X", "Mac", "Apple", "pc", False, "Safari"),
        ("curl/8.5.0", "Other", "Other", None, None, False, "curl"),
    ],
)
def test_devices_are_told_apart(
    text: str, os: str, device: str, brand: str | None, type: str | None, touch: bool, app: str
) -> None:
    told = describe(text)

    assert (told.os, told.device, told.brand, told.type, told.touch, told.app) == (os, device, brand, type, touch, app)


def test_versions_are_as_far_as_they_are_known() -> None:
    assert (describe(IPHONE).os_version, describe(IPHONE).app_version) == ("17.5", "17.5")
    assert (describe(CHROME).os_version, describe("curl/8.5.0").app_version) == ("", "8.5.0")


@pytest.mark.parametrize(
    "text",
    [
        GOOGLEBOT,
        "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        "Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)",
        "Mozilla/5.0 (compatible; YandexImages/3.0; +http://yandex.com/bots)",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
        "Mozilla/5.0 (compatible; Yahoo! Slurp; http://help.yahoo.com/help/us/ysearch/slurp)",
        "Scrapy/2.11 (+https://scrapy.org)",
        "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)",
    ],
)
def test_bots_are_known_by_their_name(text: str) -> None:
    assert is_bot(text)
    assert describe(text).bot
    assert describe(text).app_type == "other"


@pytest.mark.parametrize(
    "text",
    [
        CHROME,
        IPHONE,
        GALAXY,
        MAC,
        CHROME.replace("Chrome/", "HeadlessChrome/"),
        "Mozilla/5.0 (Linux; Android 12; CUBOT P60) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/96 Mobile",
        "curl/8.5.0",
        "python-requests/2.31.0",
        "okhttp/4.12.0",
        "",
    ],
)
def test_people_tests_and_back_offices_are_no_bots(text: str) -> None:
    assert not is_bot(text)
    assert not describe(text).bot


@pytest.mark.parametrize("text", ["", "junk", "x" * 100_000, "/" * 10_000, "\x00/()", "Mozilla/" + "(" * 5_000])
def test_no_text_is_too_odd(text: str) -> None:
    assert describe(text).app_type in ("browser", "other")
