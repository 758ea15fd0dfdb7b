import pytest
import torch

from inflate.errors import InputError
from inflate.evaluate.retrieval import (
    choose_names,
    cosine_similarity_matrix,
    measure_retrieval,
    ranks_of_targets,
    retrieve,
    score_ranks,
)


def test_choice_is_fixed_by_the_seed_and_not_by_the_order():
    names = [f"{index:02x}" for index in range(50)]
    chosen = choose_names(names, 10, seed=0)
    assert chosen == choose_names(names[::-1], 10, seed=0)
    assert len(set(chosen)) == 10
    assert chosen != choose_names(names, 10, seed=1)
    with pytest.raises(InputError, match="cannot choose 51 prompts: the data has 50 names"):
        choose_names(names, 51, seed=0)


def test_cosine_does_not_see_length():
    similarity = cosine_similarity_matrix(torch.tensor([[3.0, 0.0]]), torch.tensor([[9.0, 0], [0, 2], [1, 1], [-4, 0]]))
    assert similarity[0].tolist() == pytest.approx([1.0, 0.0, 0.5**0.5, -1.0])


def test_ranks_by_hand_and_ties_count_against_the_target():
    similarity = torch.tensor([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.2, 0.2, 0.2]])
    assert ranks_of_targets(similarity, torch.tensor([0, 2, 1])).tolist() == [1, 3, 3]


def test_retrieve_lists_the_nearest_first():
    gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    ranks, nearest = retrieve(torch.tensor([[1.0, 0.2]]), ["y"], gallery, ["x", "y", "z"], top=2)
    assert ranks == [3]
    assert nearest == [("x", "z")]


def test_score_by_hand():
    score = score_ranks([1, 5, 6, 1], gallery=10, top=5)
    assert (score.queries, score.top_1, score.top_k) == (4, 2, 3)
    assert score.mean_rank == pytest.approx(3.25)
    assert score.median_rank == 1


def mean_colour(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.mean(dim=(2, 3))


def test_report_ranks_generated_and_real_pictures_against_every_still():
    stills = torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 4, 4)  # red, green, blue
    generated = stills[[0, 2]] * 0.5 + 0.1  # a pale red for red, a pale blue for green
    report = measure_retrieval(
        generated=generated,
        targets=["red", "green"],
        stills=stills,
        still_names=["red", "green", "blue"],
        caption=lambda name: f"the colour {name}",
        features=mean_colour,
        real={"the stills themselves": (stills[[0, 1]], ["red", "green"]), "none": (stills[:0], [])},
        split="train",
        seed=0,
        top=1,
    )
    assert (report.score.top_1, report.score.queries, report.score.gallery) == (1, 2, 3)
    assert report.prompts[0].rank == 1
    assert report.prompts[1].nearest == ("blue",)
    assert report.prompts[1].caption == "the colour green"
    assert {name: score.top_1 for name, score in report.ceilings.items()} == {"the stills themselves": 2}


def test_refusals():
    gallery = torch.eye(2)
    with pytest.raises(InputError, match="no still of 'q'"):
        retrieve(gallery[:1], ["q"], gallery, ["a", "b"], 1)
    with pytest.raises(InputError, match="one thing twice"):
        retrieve(gallery[:1], ["a"], gallery, ["a", "a"], 1)
    with pytest.raises(InputError, match="--top is 3"):
        retrieve(gallery[:1], ["a"], gallery, ["a", "b"], 3)
    with pytest.raises(InputError, match="no pictures to score"):
        score_ranks([], 5, 5)
