"""index.html: whole, alone, escaped, and small enough."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import report_record
from hypothesis import given, settings
from strategies import HOSTILE, records

from sae_checks.judging.worst_sequences import WorstSequence
from sae_checks.report import contents, html, wording

VOID = {"meta", "br", "wbr"}
IMPLIED = {"td", "tr", "th"}  # HTML lets their ends be left out, and a page has thousands


class Page(HTMLParser):
    """Tags with their attributes, visible text, and what does not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.said, self.faults = [], [], [], []
        self.order, self.details = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.order.append((1, tag, "open" in dict(attrs)))
        if tag == "details":
            self.details.append("open" in dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.order.append((-1, tag, self.details.pop() if tag == "details" and self.details else False))
        while self.open and self.open[-1] != tag and self.open[-1] in IMPLIED:
            self.open.pop()
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        if "style" not in self.open:
            self.said.append(data)

    @property
    def text(self):
        return "".join(self.said)


def page_of(run):
    return html.page(contents.build(run))


def known_tags():
    return {tag for tag, _ in Page(page_of(report_record.run())).tags}


def test_the_verdict_comes_first_then_why():
    """Before any table: the word, what failed, and by how much."""
    said = Page(page_of(report_record.run())).text
    order = [
        "FAILED: a-release",
        "1 of 3 SAEs not within limits: 1 failed, 15 passed",
        "CE loss ce_increase as told",
        "The value that was judged, and its limit.",
        "Value and interval by SAE",
        "Files of weights",
    ]
    at = [" ".join(said.split()).find(words) for words in order]
    assert -1 not in at
    assert at == sorted(at)


def test_a_green_run_is_green():
    """And says nothing of reasons."""
    said = Page(page_of(report_record.run(red=()))).text
    assert "PASSED" in said
    assert "Why" not in said.split("Every SAE")[0]


def test_each_sae_shows_what_the_record_has_of_it():
    """Curves, the worst text with the token that cost most, flips, sparsity, its propagation, its files."""
    said = " ".join(Page(page_of(report_record.run())).text.split())
    for words in (
        "training context 64",
        "limit ≤ 0.3",
        "1.5 nats/token over document 3; tokens 11 to 15",
        "fox↵ <jumps>|",
        "he went to",
        "Error carried to later SAEs",
        "no queries",
        "standard · 64 → 512 latents",
        report_record.SHA,
        "Linux",
    ):
        assert words in said, words


@pytest.mark.parametrize("name", ["cow", "<script>x</script>", "a\u202eb", "\n|\x00"])
def test_choices_that_flipped_are_shown(name):
    """Question, answer and what was chosen instead, each as text; the table is open where the check is red."""
    run = report_record.run()
    told = (report_record.choice_flip(instead=name), report_record.choice_flip("won"))
    red = [replace(r, outcome="failed", changed_choices=told) if r.check == "cbt" else r for r in run.results]
    text = page_of(replace(run, results=tuple(red)))
    page = Page(text)
    said = "".join(page.text.split())
    assert f"▼lost…Theyallsatdown.TheXXXXXslept.hen{wording.text(name)}0.70.3" in said
    assert "▲won…Theyallsatdown.TheXXXXXslept.hencow0.70.3" in said
    assert {tag for tag, _ in page.tags} <= known_tags()
    assert "<details open><summary>Lost: 1 examples, won: 1;" in text
    assert "choices that flipped" not in Page(page_of(run)).text


def test_nothing_is_fetched_and_no_script_runs():
    """No script, no link out, and a policy that allows the page's own style alone, by its hash."""
    text = page_of(report_record.run())
    page = Page(text)
    assert not {"script", "link", "iframe", "img", "object", "form"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not {"src", "style", "onload", "onclick"} & attributes.keys()
        assert attributes.get("href", "#").startswith("#")
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in style
    assert "@import" not in style


def test_every_picture_has_a_title_a_description_and_a_table():
    """For those who do not see it."""
    text = page_of(report_record.run())
    drawn = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawn) == 2 + 3 * 4 + 4 + 1  # L0, curves of three SAEs, four profiles, a stack
    for svg in drawn:
        assert re.search(r"<title id=\"[^\"]+\">[^<]+</title><desc id=\"[^\"]+\">[^<]+</desc>", svg)
    for figure in re.findall(r"<figure>.*?</figure>", text, re.DOTALL):
        in_figure = "<table" in figure
        assert in_figure or "Numbers by position" in text
    assert text.count("<summary>Numbers by position</summary>") == 3


def test_links_lead_to_what_is_there():
    """Ids are unique, and every name in the table leads to its section."""
    page = Page(page_of(report_record.run()))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = [attributes["href"][1:] for tag, attributes in page.tags if tag == "a"]
    assert len(links) >= 4
    assert set(links) <= set(ids)
    assert page.faults == []


@settings(max_examples=60)
@given(records())
def test_any_record_is_a_page(run):
    """It nests, holds no tag that is not ours, no control character, and can be written as UTF-8."""
    text = page_of(run)
    text.encode("utf-8")
    page = Page(text)
    assert page.faults == []
    assert {tag for tag, _ in page.tags} <= known_tags()
    assert all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize(
    "name", [*HOSTILE, "a|b `c` *d* _e_", "</style></title><script>x</script>", '"><svg onload=x>']
)
def test_a_name_is_text_wherever_it_stands(name):
    """Of a release, an SAE, a file, a token, an answer."""
    run = report_record.run(2, red=(), release=name)
    first, *rest = run.results
    each = WorstSequence(
        document_index=0,
        mean_increase_nats_per_token=9.0,
        first_position=0,
        tokens=(name,) * 2,
        increase_nats=(None, 9.0),
    )
    facts = replace(first.provenance.sae, sae_id=name, hook=name)
    first = replace(
        first,
        sae_id=name,
        reason=name,
        worst_sequences=(each,),
        outcome="failed",
        provenance=replace(first.provenance, sae=facts),
    )
    page = Page(page_of(replace(run, results=(first, *rest))))
    assert {tag for tag, _ in page.tags} <= known_tags()
    assert wording.text(name) in page.text


def test_a_record_of_many_saes_is_shown_shorter(monkeypatch):
    """Examples first, then measures; never a verdict, never a table of what is drawn; and it says so."""
    words = tuple(f" word{i}" for i in range(200))
    many = WorstSequence(
        document_index=1, mean_increase_nats_per_token=2.0, first_position=0, tokens=words, increase_nats=(1.5,) * 200
    )
    run = report_record.run(24)
    results = [replace(r, worst_sequences=(many,) * 5) if r.worst_sequences else r for r in run.results]
    run = replace(run, results=tuple(results))
    short = page_of(run)
    assert len(short.encode()) <= html.N_BYTES_MOST
    assert "a large release shows fewer" in short
    assert short.count("<summary>Numbers by position</summary>") == 24
    monkeypatch.setattr(html, "N_BYTES_MOST", 10**9)
    whole = page_of(run)
    assert len(whole.encode()) > 10**6
    assert "a large release shows fewer" not in whole


def test_shaded_texts():
    """Neighbouring tokens of no shade are one piece; nothing is lost; shades rise with the cost."""
    each = report_record.worst_sequence()
    found = html.shaded_texts(each)
    assert "".join(piece.text for piece in found) == " the fox↵ <jumps>|"
    assert [(piece.text, piece.level) for piece in found] == [
        (" the ", 0),
        ("fox", 5),
        ("↵ ", 0),
        ("<jumps>", 2),
        ("|", 0),
    ]
    assert [(costly.token, costly.position, costly.before) for costly in html.costliest_tokens(each)] == [
        (" fox", 11, " the"),
        (" <jumps>", 13, " the fox↵"),
        (" the", 10, ""),
    ]


def test_a_release_that_is_red_everywhere_folds_its_reasons():
    """The first few stand open, all of them are there."""
    text = page_of(report_record.run(7, red=[f"blocks.{i}.hook_resid_pre" for i in range(7)]))
    why = text[text.index('id="why"') : text.index('id="grid"')]
    assert why.count('class="why"') == 7
    assert why[: why.index("<details>")].count('class="why"') == 4
    assert "3 more" in why


def n_shown_at_first(text):
    """Number of tags outside of folded sections."""
    page, depth, n = Page(text), 0, 0
    for way, tag, is_open in page.order:
        if tag == "details" and not is_open:
            depth += way
        elif depth == 0 and way > 0:
            n += 1
    return n


@pytest.mark.parametrize(("n_saes", "n_bytes", "n_shown"), [(26, 1_500_000, 3_000), (200, 2_500_000, 4_500)])
def test_a_large_release_is_a_page_that_one_can_open(n_saes, n_bytes, n_shown):
    """Bytes, and how many elements are laid out before anything is unfolded."""
    text = page_of(report_record.many(n_saes))
    assert len(text.encode()) <= n_bytes
    assert n_shown_at_first(text) <= n_shown


def test_the_regressions_stand_first_and_the_same_is_folded():
    """SAE and check are columns of their own."""
    text = page_of(report_record.many(6))
    section = text[text.index('id="baseline"') : text.index('id="tradeoff"')]
    first = section[: section.index("<details")]
    assert first.count('<tr class="failed">') == 4
    assert first.count('<tr class="passed">') == 0
    assert section.count('<tr class="passed">') == 20
    said = "".join(Page(first + "</section>").text.split())
    assert "SAECheckOutcomeDifference" in said
    assert "blocks.2.hook_resid_postCElossfailed0.2≤0.10.10.3[0.15,0.25],n64" in said


def test_a_diagnosis_stands_before_its_numbers():
    said = "".join(Page(page_of(report_record.many(6, has_baseline=False))).text.split())
    sentence = "thereconstructionis1.6timestoolong"
    assert 0 < said.index(sentence) < said.index("asitis0.452") < said.index("withlength0.970.010.99")
    assert "worstlatents3,7" in said
    assert "atblocks.1.hook_resid_pre0.97" in said


def test_red_comes_first_and_what_nobody_measured_is_no_column():
    page = page_of(report_record.many(6, has_baseline=False))
    grid = page[page.index('id="grid"') : page.index('id="release"')]
    assert grid.index("blocks.<wbr>2.<wbr>hook_<wbr>resid_<wbr>post") < grid.index("blocks.<wbr>0.")
    assert "Children" not in grid
    assert "<b>13</b>" in grid  # the L0 of the red one


def test_an_accepted_limit_is_told_beside_its_value():
    run = report_record.run(red=())
    first, *rest = run.results
    said = Page(page_of(replace(run, results=(replace(first, accepted="a paper of 2024"), *rest)))).text
    assert "≤ 0.3 accepted" in said
    assert "accepted: a paper of 2024" in said


def test_of_many_saes_a_plot_shows_the_worst_and_a_matrix_the_ends():
    found = contents.build(report_record.many(26))
    assert [len(plot.dots) for plot in found.profiles] == [12] * 4
    assert found.profiles[0].dots[0].label == "blocks.11.hook_resid_post"
    assert found.matrices[0].columns == ("the next SAE", "the last SAE")
