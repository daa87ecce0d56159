"""Products with the derivatives of any model, from whatever functions it was published with.

Protocols of scientists ask for products: cotangents with the Jacobian (``vjp``), the Jacobian with
tangents (``jvp``), the Hessian with tangents (``hvp``). An artifact may have these as functions, or
the Jacobian and Hessian themselves, or, as a curve, derivatives of one number by one. Each product
here takes one run of one graph.

``contract.manifest`` names the tensors. A row of an input x has the shape ``*x``.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from contract.manifest import Function, Tensor
from contract.signatures import ROWS
from service.api.calling import DIRECTIONS, compute, named, row_numbers
from service.runtime.dataplane import check
from service.runtime.errors import BadTensor, NoSuchModel, TooManyNumbers
from service.runtime.loader import Model
from service.runtime.session import Array
from service.web.state import Services

VALUE = "value"
MOST_PIECES = 100  # of a Jacobian that is made of products; each holds a few milliseconds


Key = TypeVar("Key", bound=tuple[str, ...])


class Unsupported(Exception):
    """The model was published without the functions that this needs. The text says which."""


@dataclass(frozen=True)
class Derivatives:
    """A model as a function with derivatives: inputs and outputs of its value, and what there is.

    ``first`` has the output with the Jacobian of an output by an input, [n, *y, *x]; ``second``
    that with the second derivatives of an output that is a number, by two inputs. ``vjp``, ``jvp``
    and ``hvp`` are those functions, where the model has them.
    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    first: dict[tuple[str, str], str]
    second: dict[tuple[str, str, str], str]
    vjp: Function | None
    jvp: Function | None
    hvp: Function | None

    @cached_property
    def named_sizes(self) -> frozenset[str]:
        """The sizes that the caller chooses: the rows n, and whatever else has a name."""
        tensors = [*self.inputs.values(), *self.outputs.values()]
        return frozenset(size for tensor in tensors for size in tensor.shape if type(size) is str)

    @cached_property
    def differentiable_inputs(self) -> list[str]:
        """The inputs by which the model can be differentiated."""
        return [name for name, tensor in self.inputs.items() if tensor.dtype.startswith("float")]

    @cached_property
    def differentiable_outputs(self) -> list[str]:
        """The outputs that can be differentiated."""
        return [name for name, tensor in self.outputs.items() if tensor.dtype.startswith("float")]

    @property
    def all_first(self) -> bool:
        """Is there a Jacobian of every output by every input?"""
        pairs = [(y, x) for y in self.differentiable_outputs for x in self.differentiable_inputs]
        return bool(pairs) and all(pair in self.first for pair in pairs)

    @property
    def has_vjp(self) -> bool:
        """Can cotangents be multiplied with the Jacobian?"""
        return self.vjp is not None or self.all_first

    @property
    def has_jvp(self) -> bool:
        """Can the Jacobian be multiplied with tangents?"""
        return self.jvp is not None or self.all_first

    @property
    def has_hvp(self) -> bool:
        """Can the second derivatives be multiplied with tangents?"""
        inputs = self.differentiable_inputs
        every = [(f, x, z) for f in self.differentiable_outputs for x in inputs for z in inputs]
        return self.hvp is not None or (bool(every) and all(key in self.second for key in every))


_known: WeakKeyDictionary[Model, Derivatives] = WeakKeyDictionary()


def derivatives(model: Model) -> Derivatives:
    """The model as a function with derivatives. Raises NoSuchModel if it has no value."""
    found = _known.get(model)
    if found is None:
        found = _known[model] = _find(model)
    return found


def _find(model: Model) -> Derivatives:
    functions = model.manifest.functions
    if VALUE not in functions:
        raise NoSuchModel("That model has no function 'value'; /models says what it has")
    value = functions[VALUE]
    inputs = {tensor.name: tensor for tensor in value.inputs}
    outputs = {tensor.name: tensor for tensor in value.outputs}
    given = {tensor.name for function in functions.values() for tensor in function.outputs}
    first, second = {}, {}
    for y in outputs:
        for x in inputs:
            for prefix in ("jacobian", "gradient"):
                if (name := f"{prefix}_{y}_{x}") in given:
                    first[y, x] = name
            for z in inputs:
                if (name := f"hessian_{y}_{x}_{z}") in given:
                    second[y, x, z] = name
    if model.curve is not None:
        y, x = model.curve.y, model.curve.x
        orders = model.curve.derivatives
        if 1 in orders:
            first[y, x] = orders[1]
        if 2 in orders:
            second[y, x, x] = orders[2]
    products = [functions.get(name) for name in ("vjp", "jvp", "hvp")]
    return Derivatives(inputs, outputs, first, second, *products)


class Call:
    """One request for derivatives of ``model`` at ``inputs``.

    Arrays by name: ``inputs`` and tangents of an input have its shape, cotangents that of an
    output. Vectors that are left out are zero. Raises Invalid, TooManyNumbers or QueueFull, and
    Unsupported where the model lacks what it takes.
    """

    def __init__(
        self, model: Model, inputs: Mapping[str, Array], shared: Services, pointers: dict[str, str]
    ) -> None:
        self.model = model
        self.inputs = dict(inputs)
        self.shared = shared
        self.pointers = pointers
        self.known = derivatives(model)

    async def value(self, wanted: Sequence[str] = ()) -> dict[str, Array]:
        """The outputs of the value."""
        return await self._ask(self.inputs, list(wanted) or list(self.known.outputs))

    async def vjp(self, cotangents: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """For each input that is wanted: the sum over the outputs of cotangent · Jacobian."""
        known = self.known
        function = known.vjp
        if function is not None:
            vectors = self._vectors(function, "cotangent_", known.outputs, cotangents)
            return await self._product(function, "vjp_", vectors, wanted)
        found = await self._blocks(known.first, [(y, x) for y in cotangents for x in wanted], "vjp")
        return {
            x: sum_of(
                _contract(cotangents[y], found[y, x], self._has_rows(known.inputs[x]))
                for y in cotangents
            )
            for x in wanted
        }

    async def jvp(self, tangents: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """For each output that is wanted: the sum over the inputs of Jacobian · tangent."""
        known = self.known
        function = known.jvp
        if function is not None:
            vectors = self._vectors(function, "tangent_", known.inputs, tangents)
            return await self._product(function, "jvp_", vectors, wanted)
        found = await self._blocks(known.first, [(y, x) for y in wanted for x in tangents], "jvp")
        return {
            y: sum_of(
                _apply(found[y, x], tangents[x], self._has_rows(known.inputs[x])) for x in tangents
            )
            for y in wanted
        }

    async def hvp(
        self, output: str, cotangent: Array, tangents: Mapping[str, Array], wanted: str
    ) -> Array:
        """Derivative by the input ``wanted`` of: cotangent · Jacobian · tangents."""
        known = self.known
        function = known.hvp
        rows = self._has_rows(known.inputs[wanted])
        if function is not None:
            vectors = self._vectors(function, "tangent_", known.inputs, tangents)
            taken = {tensor.name for tensor in function.inputs}
            if f"cotangent_{output}" in taken:
                cotangents = {output: cotangent}
                vectors |= self._vectors(function, "cotangent_", known.outputs, cotangents)
                return (await self._product(function, "hvp_", vectors, [wanted]))[wanted]
            if rows or cotangent.size == 1:
                found = (await self._product(function, "hvp_", vectors, [wanted]))[wanted]
                return _scaled(found, cotangent)
            raise Unsupported("The hvp of that model sums over the rows; ask for one at a time")
        blocks = [(output, wanted, x) for x in tangents]
        second = await self._blocks(known.second, blocks, "hvp")
        products = (
            _apply(second[output, wanted, x], tangents[x], self._has_rows(known.inputs[x]))
            for x in tangents
        )
        return _summed(_scaled(sum_of(products), cotangent), rows)

    async def jacobian(
        self, outputs: Sequence[str], by: Sequence[str]
    ) -> dict[tuple[str, str], Array]:
        """The Jacobian of each output by each input: [n, *y, *x], without n where nothing has it.

        One run for all of them where the model has them as outputs, else one for each output.
        """
        pairs = [(y, x) for y in outputs for x in by]
        if all(pair in self.known.first for pair in pairs):
            return await self._blocks(self.known.first, pairs, "jacobian")
        found = {}
        for y in outputs:
            for x, block in (await self._jacobian_by_vjp(y, by)).items():
                found[y, x] = block
        return found

    async def _jacobian_by_vjp(self, output: str, by: Sequence[str]) -> dict[str, Array]:
        """The Jacobian of one output, by a cotangent for each of its elements: as many at a time as
        an answer may have numbers.
        """
        known, sizes = self.known, self.sizes()
        y = known.outputs[output]
        rows = self._has_rows(y)
        shape = [sizes[s] if isinstance(s, str) else s for s in y.shape]
        lead, each = (shape[:1], shape[1:]) if rows else ([], shape)
        summed = [x for x in by if rows and not self._has_rows(known.inputs[x])]
        if known.vjp is None or (summed and lead != [1]):
            raise Unsupported("That model was published without 'jacobian'")
        count, most = prod(each), self.model.max_numbers
        # Of one cotangent, or of its product.
        numbers = max(
            count_numbers(list(tensors.values()), sizes)
            for tensors in (known.outputs, known.inputs)
        )
        if count * numbers > MOST_PIECES * most:
            raise TooManyNumbers(
                f"That model was published without 'jacobian', and {output} has too many elements "
                "to make it of products, one for each"
            )
        step = max(1, most // numbers)
        pieces: dict[str, list[Array]] = {x: [] for x in by}
        for start in range(0, count, step):
            units = np.eye(min(step, count - start), count, start, dtype=y.dtype)
            shape = [*lead, len(units), *each]
            cotangents = {output: np.broadcast_to(units.reshape(-1, *each), shape)}
            vectors = self._vectors(known.vjp, "cotangent_", known.outputs, cotangents, len(units))
            found = await self._product(known.vjp, "vjp_", vectors, by, keep=True)
            for x, array in found.items():
                pieces[x].append(array)
            if start + step < count:
                await asyncio.sleep(0)  # others' turn
        made = {}
        for x, parts in pieces.items():
            axis = 0 if x in summed else len(lead)  # of the directions
            array = parts[0] if len(parts) == 1 else np.concatenate(parts, axis)
            made[x] = array.reshape(*lead, *each, *array.shape[axis + 1 :])
        return made

    def sizes(self) -> dict[str, int]:
        """The sizes of the named dimensions. Raises Invalid where inputs contradict each other."""
        try:
            return check(self.model, self.inputs)
        except BadTensor as error:
            raise named(error, self.pointers) from None

    def limit(self, count: int) -> None:
        """Raise TooManyNumbers if an answer of ``count`` numbers is over the limit."""
        if count > self.model.max_numbers:
            raise TooManyNumbers(
                f"The answer would have {count} numbers; ask for at most {self.model.max_numbers}"
            )

    async def _ask(self, inputs: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        return await compute(self.model, inputs, wanted, self.shared, self.pointers)

    async def _blocks(
        self, names: Mapping[Key, str], keys: Sequence[Key], what: str
    ) -> dict[Key, Array]:
        for key in keys:
            if key not in names:
                raise Unsupported(f"That model was published without '{what}' of {', '.join(key)}")
        found = await self._ask(self.inputs, [names[key] for key in keys])
        return {key: found[names[key]] for key in keys}

    def _vectors(
        self,
        function: Function,
        prefix: str,
        of: Mapping[str, Tensor],
        given: Mapping[str, Array],
        directions: int = 1,
    ) -> dict[str, Array]:
        """The vectors that ``function`` takes, one direction each unless they come with several."""
        sizes: dict[str, int] = {}
        vectors = {}
        for tensor in function.inputs:
            name = tensor.name.removeprefix(prefix)
            if name == tensor.name or name not in of:
                continue
            array = given.get(name)
            if array is None:
                sizes = sizes or {**self.sizes(), DIRECTIONS: directions}
                shape = [sizes[s] if isinstance(s, str) else s for s in tensor.shape]
                array = np.zeros(shape, tensor.dtype)
            elif array.ndim < len(tensor.shape):
                place = tensor.shape.index(DIRECTIONS)
                array = array.reshape(*array.shape[:place], 1, *array.shape[place:])
            vectors[tensor.name] = array
        return vectors

    async def _product(
        self,
        function: Function,
        prefix: str,
        vectors: Mapping[str, Array],
        wanted: Sequence[str],
        keep: bool = False,
    ) -> dict[str, Array]:
        """The products, without the dimension that counts directions unless ``keep``."""
        outputs = {tensor.name: tensor for tensor in function.outputs}
        names = [prefix + name for name in wanted]
        for name in names:
            if name not in outputs:
                raise Unsupported(f"That model was published without {name}")
        taken = {tensor.name for tensor in function.inputs}
        inputs = {name: array for name, array in self.inputs.items() if name in taken}
        found = await self._ask({**inputs, **vectors}, names)
        if keep:
            return {name: found[prefix + name] for name in wanted}
        return {
            name: found[prefix + name].squeeze(outputs[prefix + name].shape.index(DIRECTIONS))
            for name in wanted
        }

    def _has_rows(self, tensor: Tensor) -> bool:
        return tensor.shape[:1] == (ROWS,)


def count_numbers(tensors: Sequence[Tensor], sizes: Mapping[str, int]) -> int:
    """How many numbers all of ``tensors`` have."""
    return sum(row_numbers(tensor, sizes) for tensor in tensors)


def sum_of(arrays: Iterable[Array]) -> Array:
    """The sum of one array or more."""
    total: Array | None = None
    for array in arrays:
        total = array if total is None else total + array
    if total is None:
        raise Unsupported("There is nothing to differentiate")
    return total


def _contract(cotangent: Array, block: Array, rows: bool) -> Array:
    """cotangent [n, *y] times Jacobian [n, *y, *x], summed over y; and over n unless ``rows``."""
    dims = cotangent.ndim
    weights = cotangent.reshape(*cotangent.shape, *[1] * (block.ndim - dims))
    product = weights * block
    axes = tuple(range(1 if rows else 0, dims))
    return product.sum(axis=axes) if axes else product


def _apply(block: Array, tangent: Array, rows: bool) -> Array:
    """Jacobian [n, *y, *x] times tangent [n, *x] (or [*x] unless ``rows``), summed over x."""
    dims = tangent.ndim - (1 if rows else 0)
    if rows:
        middle = block.ndim - tangent.ndim
        tangent = tangent.reshape(tangent.shape[0], *[1] * middle, *tangent.shape[1:])
    product = block * tangent
    return product.sum(axis=tuple(range(product.ndim - dims, product.ndim))) if dims else product


def _scaled(array: Array, factors: Array) -> Array:
    """Each row of ``array`` times its factor."""
    if factors.size == 1:
        return array * factors.reshape(())
    return array * factors.reshape(factors.shape[0], *[1] * (array.ndim - 1))


def _summed(array: Array, rows: bool) -> Array:
    return array if rows or array.ndim == 0 else array.sum(axis=0)
