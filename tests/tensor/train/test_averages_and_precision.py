"""Moving average, loss scale and stochastic rounding beside their libraries and definitions."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from sdft.models.bundle import load_bundle
from sdft.train.ema import MovingAverage, kept_aside
from sdft.train.rounding import StochasticRounding, round_stochastically
from sdft.train.scaler import LossScaler
from tests.tensor.train.engine import fixed_batch, stepper_of

CPU = torch.device("cpu")


def weights(dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        for shape in [(40, 30), (25,), (64, 64)]
    ]


def walk(parameters, update):
    """Move weights as an optimizer would."""
    generator = torch.Generator().manual_seed(update)
    with torch.no_grad():
        for one in parameters:
            one.add_(0.01 * torch.randn(one.shape, generator=generator).to(one.dtype))


def average_of(parameters, decay=0.99):
    return MovingAverage(
        {f"w{n}": one for n, one in enumerate(parameters)}, decay=decay, device=CPU
    )


class TestMovingAverage:
    def test_it_follows_diffusers_own(self):
        ours, theirs = weights(), weights()
        average, reference = average_of(ours), EMAModel(theirs, decay=0.99)
        for update in range(40):
            walk(ours, update)
            walk(theirs, update)
            average.update()
            reference.step(theirs)
        for mine, other in zip(average.tensors().values(), reference.shadow_params, strict=False):
            torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)

    def test_the_first_update_forgets_the_start_and_the_decay_grows_to_its_limit(self):
        parameters = weights()
        average = average_of(parameters, decay=0.5)
        walk(parameters, 0)
        average.update()
        assert torch.equal(average.tensors()["w0"], parameters[0])
        decays = []
        for _ in range(20):
            decays.append(average.decay_now())
            average.update()
        assert decays[0] == pytest.approx(2 / 11)
        assert decays == sorted(decays)
        assert decays[-1] == 0.5

    def test_a_resumed_average_has_the_same_bits(self):
        whole, halved = weights(), weights()
        first, before = average_of(whole), average_of(halved)
        for update in range(10):
            walk(whole, update)
            first.update()
        for update in range(4):
            walk(halved, update)
            before.update()
        after = average_of(halved)
        after.load({name: tensor.clone() for name, tensor in before.tensors().items()})
        for update in range(4, 10):
            walk(halved, update)
            after.update()
        assert first.tensors().keys() == after.tensors().keys()
        for name, tensor in first.tensors().items():
            assert torch.equal(tensor, after.tensors()[name])

    def test_the_average_of_bfloat16_weights_moves(self):
        parameters = weights(torch.bfloat16)
        average = average_of(parameters, decay=0.9999)
        for update in range(200):
            walk(parameters, update)
            average.update()
        before = average.tensors()["w0"].clone()
        walk(parameters, 300)
        average.update()
        assert average.tensors()["w0"].dtype == torch.float32
        assert not torch.equal(before, average.tensors()["w0"])

    def test_the_weights_come_back_to_the_bit_even_after_an_error(self):
        parameters = weights(torch.bfloat16)
        average = average_of(parameters)
        average.update()
        walk(parameters, 1)
        before = [one.detach().clone() for one in parameters]

        def fail():
            with average.swapped_in():
                assert not torch.equal(parameters[0], before[0])
                raise RuntimeError("disk full")

        with pytest.raises(RuntimeError, match="disk full"):
            fail()
        assert all(torch.equal(one, old) for one, old in zip(parameters, before, strict=True))


class TestLossScale:
    def test_scale_and_gradients_are_those_of_torchs_scaler(self):
        """The same losses, some of which overflow, on float32, which torch's scaler takes."""
        ours, theirs = weights(), weights()
        scaler = LossScaler(scale=1024.0, growth_interval=3)
        reference = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
        optimizer = torch.optim.SGD(theirs, lr=0.1)
        own_optimizer = torch.optim.SGD(ours, lr=0.1)
        for update in range(14):
            spoilt = update in (4, 9)

            def loss_of(parameters, spoilt=spoilt, update=update):
                total = sum((one**2).sum() * (update + 1) for one in parameters)
                return total * float("inf") if spoilt else total

            reference.scale(loss_of(theirs)).backward()
            reference.unscale_(optimizer)
            expected_norm = torch.nn.utils.clip_grad_norm_(theirs, 1.0)
            reference.step(optimizer)
            reference.update()
            optimizer.zero_grad()

            scaler.scaled(loss_of(ours)).backward()
            norm, finite = scaler.unscale_and_clip(ours, 1.0)
            scaler.update(finite=finite)
            if finite:
                own_optimizer.step()
            own_optimizer.zero_grad()

            assert finite is not spoilt
            if finite:
                torch.testing.assert_close(norm, expected_norm)
            assert scaler.scale == reference.get_scale()
            for one, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(one, other)
        state = reference.state_dict()
        assert scaler.num_good_updates == state["_growth_tracker"]

    def test_it_takes_fp16_gradients_that_torchs_scaler_refuses(self):
        parameters = weights(torch.float16)
        scaler = LossScaler()
        for one in parameters:
            one.grad = torch.full_like(one, 0.5)
        reference = torch.amp.GradScaler("cpu")
        reference.scale(torch.ones(()))
        with pytest.raises(ValueError, match="FP16"):
            reference.unscale_(torch.optim.SGD(parameters, lr=0.1))
        norm, finite = scaler.unscale_and_clip(parameters, 0.0)
        assert finite
        num = sum(one.numel() for one in parameters)
        assert norm.item() == pytest.approx(0.5 * num**0.5 / 65536)
        assert parameters[0].grad[0, 0].item() == pytest.approx(0.5 / 65536, rel=1e-2)

    def test_its_state_comes_back(self):
        scaler = LossScaler(scale=8.0, growth_interval=5, num_good_updates=3)
        other = LossScaler()
        other.load_state_dict(scaler.state_dict())
        assert (other.scale, other.num_good_updates) == (8.0, 3)

    def test_full_fp16_trains_and_an_overflow_leaves_the_weights_alone(self, toys):
        bundle = load_bundle(toys["sd1"])
        bundle.unet.half()
        batch = fixed_batch(bundle)
        stepper = stepper_of(bundle, lr=1e-3, clip=1.0, scaler=LossScaler(scale=128.0))
        stepper = _with_input(stepper, torch.float16)
        losses = [stepper.update([batch]).loss.item() for _ in range(4)]
        assert all(weight.dtype == torch.float16 for weight in stepper.parameters)
        assert losses[-1] < losses[0]
        stepper.scaler.scale = 2.0**40
        before = [weight.detach().clone() for weight in stepper.parameters]
        stepper.update([batch])
        assert stepper.scaler.scale == 2.0**39
        assert all(torch.equal(a, b) for a, b in zip(before, stepper.parameters, strict=True))


def _with_input(stepper, dtype):
    """Return a stepper whose network gets inputs of a dtype, the contexts included."""
    encode = stepper.encode_text
    objective = dataclasses.replace(stepper.objective, input_dtype=dtype)
    return dataclasses.replace(
        stepper, objective=objective, encode_text=lambda ids, weights=None: encode(ids).to(dtype)
    )


class TestStochasticRounding:
    def test_each_value_becomes_one_of_its_neighbours_and_is_right_on_average(self):
        value = 1.0 + 0.3 / 128
        values = torch.full((200_000,), value)
        rounded = round_stochastically(values, torch.Generator().manual_seed(1)).float()
        assert set(rounded.unique().tolist()) == {1.0, 1.0 + 1 / 128}
        # The mean's deviation is 0.46 / 128 / sqrt(200,000): six of them are allowed.
        assert rounded.mean().item() == pytest.approx(value, abs=6 * 0.46 / 128 / 447)

    def test_what_bfloat16_holds_exactly_stays(self):
        exact = torch.randn(1000).to(torch.bfloat16).float()
        again = round_stochastically(exact, torch.Generator().manual_seed(2))
        assert torch.equal(again.float(), exact)
        broken = torch.tensor([-1, 0x7FFFFFFF, 0x7FC00000, 0x7F800000], dtype=torch.int32)
        # A GPU writes the first or the second, with all bits set, where a figure is no number.
        kept = round_stochastically(broken.view(torch.float32), torch.Generator().manual_seed(2))
        assert kept[:3].isnan().all()
        assert kept[3].isinf()
        negative = round_stochastically(
            torch.full((9,), -1.001), torch.Generator().manual_seed(3)
        ).float()
        assert set(negative.tolist()) <= {-1.0, -1.0078125}

    @pytest.mark.parametrize("name", ["SGD", "AdamW"])
    def test_small_updates_arrive_on_average_and_vanish_without_it(self, name):
        def moved(*, rounds):
            weight = torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
            rounding = StochasticRounding([weight], seed=1)
            groups = [{"params": [weight]}]
            optimizer = getattr(torch.optim, name)(
                rounding.groups(groups) if rounds else groups, lr=1e-4, weight_decay=0.0
            )
            for _ in range(100):
                weight.grad = torch.ones_like(weight)
                if rounds:
                    rounding.step(optimizer, one_by_one=True)
                else:
                    optimizer.step()
            return 1.0 - weight.detach().float().mean().item()

        assert moved(rounds=True) == pytest.approx(100 * 1e-4, rel=0.05)
        assert moved(rounds=False) == 0.0

    def test_parts_and_the_whole_step_alike_but_for_the_draws(self, monkeypatch):
        def stepped(one_by_one):
            parameters = weights(torch.bfloat16)
            rounding = StochasticRounding(parameters, seed=5)
            optimizer = torch.optim.AdamW(rounding.groups([{"params": parameters}]), lr=1e-2)
            for update in range(5):
                generator = torch.Generator().manual_seed(update)
                for one in parameters:
                    one.grad = torch.randn(one.shape, generator=generator).to(torch.bfloat16)
                rounding.step(optimizer, one_by_one=one_by_one)
            assert all(one.grad is None for one in parameters)
            return parameters, optimizer

        monkeypatch.setattr("sdft.train.rounding.ELEMENTS_AT_ONCE", 1000)
        (parts, optimizer), (whole, _) = stepped(True), stepped(False)
        assert all(torch.equal(one, other) for one, other in zip(parts, whole, strict=True))
        assert all(state["exp_avg"].dtype == torch.float32 for state in optimizer.state.values())
        # Between steps the stand-ins hold nothing.
        assert all(one.numel() == 0 for one in optimizer.param_groups[0]["params"])

    @pytest.mark.parametrize("kind", ["AdamW", "AdamWScheduleFree"])
    def test_a_resumed_run_has_the_same_bits(self, kind):
        if kind == "AdamW":
            constructor = torch.optim.AdamW
        else:
            constructor = pytest.importorskip(
                "schedulefree", reason="schedulefree is not installed"
            ).AdamWScheduleFree

        def run(parameters, start, stop, state=None):
            rounding = StochasticRounding(parameters, seed=5)
            rounding.num_steps = start
            optimizer = constructor(rounding.groups([{"params": parameters}]), lr=1e-3)
            if kind != "AdamW":
                optimizer.train()
            if state is not None:
                optimizer.load_state_dict(state)
            for update in range(start, stop):
                generator = torch.Generator().manual_seed(update)
                for one in parameters:
                    one.grad = torch.randn(one.shape, generator=generator).to(torch.bfloat16)
                rounding.step(optimizer, one_by_one=kind == "AdamW")
            return copy.deepcopy(optimizer.state_dict())

        whole, halved = weights(torch.bfloat16), weights(torch.bfloat16)
        run(whole, 0, 8)
        run(halved, 3, 8, run(halved, 0, 3))
        assert all(torch.equal(one, other) for one, other in zip(whole, halved, strict=True))

    def test_the_engine_steps_bfloat16_weights_with_it(self, toys):
        bundle = load_bundle(toys["sd1"])
        torch.nn.Module.to(bundle.unet, torch.bfloat16)
        batch = fixed_batch(bundle)
        stepper = _with_input(stepper_of(bundle, lr=0.0), torch.bfloat16)
        rounding = StochasticRounding(stepper.parameters, seed=1)
        groups = rounding.groups([{"params": stepper.parameters, "lr": 1e-4, "base_lr": 1e-4}])
        optimizer = Accelerator(cpu=True).prepare(torch.optim.AdamW(groups, lr=1e-4))
        stepper = dataclasses.replace(stepper, optimizer=optimizer, rounding=rounding)
        losses = [stepper.update([batch]).loss.item() for _ in range(6)]
        assert losses[-1] < losses[0]
        assert all(weight.dtype == torch.bfloat16 for weight in stepper.parameters)
        assert rounding.num_steps == 6
        # A step that is left out leaves no gradient behind for the next one.
        broken = dataclasses.replace(batch, noise_BCHW=batch.noise_BCHW * float("nan"))
        assert not stepper.update([broken]).applied
        assert all(weight.grad is None for weight in stepper.parameters)


def test_weights_kept_aside_come_back_from_whatever_was_done_to_them():
    parameters = weights()
    before = [one.detach().clone() for one in parameters]
    with kept_aside(parameters), torch.no_grad():
        for one in parameters:
            one.zero_()
    assert all(torch.equal(one, old) for one, old in zip(parameters, before, strict=True))
