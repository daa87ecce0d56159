"""A client for gradserve on NumPy alone: a served model as a Python function with derivatives.

    f = Function("http://127.0.0.1:8000", "surrogate")
    f(x)                    # x [3] or [n, 3] → y [2] or [n, 2]
    f.jacobian(x)           # [2, 3] or [n, 2, 3]
    f.gradient(x)           # of a model with one number as its output: [3] or [n, 3]
    f.vjp(x, cotangent)     # cotangent · Jacobian
    f.jvp(x, tangent)       # Jacobian · tangent, or tangents: [k, 3], [n, k, 3]
    f.hvp(x, tangent)       # Hessian · tangent, also hvp(x, tangent, cotangent)
    scipy.optimize.minimize(f, x0, jac=f.gradient)

Several inputs go by name, ``f(x=…, theta=…)``, and so do their tangents; ``f.evaluate`` gives any
outputs by name. Each thread keeps a connection; arrays go as Open Inference Protocol's tensors.
"""

import http.client
import json
import threading
from typing import Any
from urllib.parse import urlsplit

import numpy as np

DATATYPES = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "uint8": "UINT8"}
DTYPES = {"FP64": "<f8", "FP32": "<f4", "INT64": "<i8", "UINT8": "u1"}
LENGTH = "Inference-Header-Content-Length"


class GradserveError(Exception):
    """The service refused a request: the status, and its own words."""


class Function:
    """The model ``name`` of the service at ``url``. ``shapes`` has those of all its tensors."""

    def __init__(self, url: str, name: str, key: str = "", timeout: float = 60) -> None:
        scheme, self._host, root, *_ = urlsplit(url.rstrip("/"))
        secure, self._timeout = scheme == "https", timeout
        self._connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._path = f"{root}/v2/models/{name}/infer"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._local = threading.local()
        functions = json.loads(self._request("GET", f"{root}/models/{name}")[1])["functions"]
        if not functions:
            raise GradserveError(f"503: {name} is not ready")
        value = functions.get("value") or next(iter(functions.values()))
        self.inputs = [tensor["name"] for tensor in value["inputs"]]
        self.outputs = [tensor["name"] for tensor in value["outputs"]]
        tensors = [t for f in functions.values() for t in (*f["inputs"], *f["outputs"])]
        self.shapes = {tensor["name"]: tensor["shape"] for tensor in tensors}
        self._datatypes = {tensor["name"]: DATATYPES[tensor["dtype"]] for tensor in tensors}

    def __call__(self, x: Any = None, **inputs: Any) -> Any:
        """The output, or a dict of them if there are several."""
        return _one(self.evaluate(self._given(x, inputs), self.outputs))

    def gradient(self, x: Any = None, **inputs: Any) -> Any:
        """Of a model with one number as its output, by every input; dy/dx of a curve."""
        curve = "gradient" in self.shapes
        return self._derivative("gradient" if curve else f"gradient_{self.outputs[0]}_", x, inputs)

    def jacobian(self, x: Any = None, **inputs: Any) -> Any:
        """Of the first output by every input, [n, *y, *x]."""
        return self._derivative(f"jacobian_{self.outputs[0]}_", x, inputs)

    def vjp(self, x: Any, cotangent: Any, **inputs: Any) -> Any:
        """cotangent · Jacobian, by every input. A cotangent has the shape of the output."""
        return self._product("vjp_", x, inputs, {f"cotangent_{self.outputs[0]}": cotangent})

    def jvp(self, x: Any, tangent: Any, **inputs: Any) -> Any:
        """Jacobian · tangent. A tangent has the shape of the first input."""
        return self._product("jvp_", x, inputs, {f"tangent_{self.inputs[0]}": tangent})

    def hvp(self, x: Any, tangent: Any, cotangent: Any = None, **inputs: Any) -> Any:
        """Second derivatives · tangent, weighted by the cotangent unless the output is a number."""
        vectors = {f"tangent_{self.inputs[0]}": tangent}
        if cotangent is not None:
            vectors[f"cotangent_{self.outputs[0]}"] = cotangent
        return self._product("hvp_", x, inputs, vectors)

    def evaluate(self, inputs: dict[str, Any], outputs: list[str]) -> dict[str, Any]:
        """Outputs by name; without the dimension of rows where the inputs come without it."""
        tensors, contents, lone = [], [], False
        for name, value in inputs.items():
            shape, datatype = self.shapes.get(name, []), self._datatypes.get(name, "FP64")
            array = np.asarray(value, DTYPES[datatype], order="C")
            if array.ndim == len(shape) - 1 and shape[0] == "n":
                array, lone = array[None], True
            contents.append(array.tobytes())
            size = {"binary_data_size": len(contents[-1])}
            about = {"name": name, "datatype": datatype, "shape": array.shape}
            tensors.append({**about, "parameters": size})
        document = {"inputs": tensors, "outputs": [{"name": name} for name in outputs]}
        head = json.dumps({**document, "parameters": {"binary_data_output": True}}).encode()
        start, body = self._request("POST", self._path, b"".join([head, *contents]), len(head))
        found = {}
        for tensor in json.loads(body[:start])["outputs"]:
            name, end = tensor["name"], start + tensor["parameters"]["binary_data_size"]
            array = np.frombuffer(body[start:end], DTYPES[tensor["datatype"]])
            array, start = array.reshape(tensor["shape"]).copy(), end
            found[name] = array[0] if lone and self.shapes[name][:1] == ["n"] else array
        return found

    def _product(self, prefix: str, x: Any, inputs: dict[str, Any], vectors: dict[str, Any]) -> Any:
        given, s = self._given(x, {**inputs, **vectors}), dict(self.shapes)
        if np.ndim(given[self.inputs[0]]) < len(s[self.inputs[0]]):  # a lone row
            s = {name: shape[1:] if shape[:1] == ["n"] else shape for name, shape in s.items()}
        single = [n for n, v in given.items() if "k" in s.get(n, []) and np.ndim(v) < len(s[n])]
        for name in single:  # one direction a row: k is 1
            given[name] = np.expand_dims(given[name], s[name].index("k"))
        found = self.evaluate(given, self._named(prefix)).items()
        return _one({name: a.squeeze(s[name].index("k")) if single else a for name, a in found})

    def _derivative(self, prefix: str, x: Any, inputs: dict[str, Any]) -> Any:
        return _one(self.evaluate(self._given(x, inputs), self._named(prefix)))

    def _given(self, x: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(inputs) if x is None else {self.inputs[0]: x, **inputs}

    def _named(self, prefix: str) -> list[str]:
        names = [name for name in self.shapes if name.startswith(prefix)]
        if not names:
            raise GradserveError(f"404: the model was published without {prefix.rstrip('_')}")
        return ["gradient"] if prefix == "gradient" else names

    def _request(
        self, method: str, path: str, body: bytes = b"", size: int = 0
    ) -> tuple[int, bytes]:
        """The length of the answer's JSON, and the answer. Renews a connection that was shut."""
        headers = {**self._headers, LENGTH: str(size)} if size else self._headers
        new = not hasattr(self._local, "connection")
        if new:
            self._local.connection = self._connect(self._host, timeout=self._timeout)
        try:
            self._local.connection.request(method, path, body, headers)
            answer = self._local.connection.getresponse()
            content = answer.read()
        except (http.client.HTTPException, OSError) as error:
            del self._local.connection
            if new or isinstance(error, TimeoutError):
                raise
            return self._request(method, path, body, size)
        if answer.status == 200:
            return int(answer.headers.get(LENGTH, len(content))), content
        raise GradserveError(f"{answer.status}: {json.loads(content or '{}').get('detail')}")


def _one(found: dict[str, Any]) -> Any:
    return found if len(found) > 1 else next(iter(found.values()))
