"""JSON bodies and queries that must be refused with 422."""

from itertools import product
from typing import TypeVar

T = TypeVar("T", str, bytes)

MANY_DIGITS = "9" * 4000


def named(*texts: T) -> dict[str, T]:
    """Texts by their beginning."""
    return {f"{number} {text[:40]!r}": text for number, text in enumerate(texts)}


# Bodies that are not JSON in UTF-8.
NO_JSON = named(
    *(b"", b" ", b"\0", b"n", b"{", b"{{", b"}", b'{"n', b'{"n"}', b'{"n":}', b'{"n" 1}', b'{"n"::1}', b'{"n":1,}'),
    *(b'{,"n":1}', b'{"n":1,,"seed":1}', b"{n:1}", b"{'n':1}", b'{"n":1/*one*/}', b'{"n":1}//', b'{"n":1}{"n":1}'),
    *(b'{"n":1}\n{"n":1}', b'{"n":1}x', b"n=1&seed=2", b"n: 1\n", b"<n>1</n>", b"eyJuIjoxfQ=="),
    # Numbers and names of other languages.
    *(b'{"n":True}', b'{"n":None}', b'{"n":undefined}', b'{"n":01}', b'{"n":+1}', b'{"n":.5}', b'{"n":1.}'),
    *(b'{"n":1e}', b'{"n":0x10}', b'{"n":1_0}', b'{"n":--1}', b'{"n":\x0b1}', '{"n":\u00a01}'.encode()),
    # Byte order marks, other encodings, invalid UTF-8, surrogates and control characters.
    b'\xef\xbb\xbf{"n":1}',
    *('{"n":1}'.encode(encoding) for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
    b"+AHs-+ACI-n+ACI-:1+AH0-",
    *(b'{"model":"\xff"}', b'{"model":"\xc0\xaf"}', b'{"model":"\xe2\x82"}', b'{"model":"\xed\xa0\x80"}'),
    *(b'{"model":"\xf4\x90\x80\x80"}', b'{"model":"\\ud800"}', b'{"model":"\\udc00\\ud800"}', b'{"\\ud800":1}'),
    *(b'{"model":"\\u12"}', b'{"model":"\\x41"}', b'{"model":"a\tb"}', b'{"model":"a\nb"}', b'{"model":"a\0b"}'),
    # Deep nesting.
    *(b"[" * 5000, b"[" * 5000 + b"]" * 5000, b'{"n":' * 2500, b'{"n":' * 2000 + b"1" + b"}" * 2000),
    # Formats that some parsers run or expand.
    b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
    b"\x1f\x8b\x08\0\0\0\0\0\0\3\xabV\xcaS\xb22\xac\5\0",
    b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94\x8c\1n\x94K\1s.",
)
# JSON that is not an object.
NO_OBJECT = named(b"null", b"true", b"1", b'"n"', b"[]", b'[{"n":1}]', b"NaN", b"-Infinity")

# Members of an object for the operations that have these fields.
WRONG_FIELDS = named(
    *(f'"n":{value}' for value in ('"5"', "true", "false", "1.5", "1.0", "1e1", "NaN", "Infinity", "1e309", "[1]")),
    *(f'"n":{value}' for value in ('{"n":1}', "0", "-0", "-1", "257", "9007199254740993", "18446744073709551617")),
    *(f'"n":{MANY_DIGITS}', f'"n":1e{MANY_DIGITS}'),
    *(f'"seed":{value}' for value in ("-1", "9007199254740992", "18446744073709551616", MANY_DIGITS, '"7"', '""')),
    *(f'"seed":{value}' for value in ("true", "7.5", "7.0", "NaN", "-1e309", "[]")),
    *(f'"first":{value}' for value in ("-1", '"0"', "null", "9007199254740992", '9007199254740991,"n":2')),
    *(f'"model":{value}' for value in ("1", '""', '["vae"]', '{"$ne":1}', "true", '"' + "x" * 65 + '"')),
    # Repeated names.
    *('"n":1,"n":2', '"n":1,"n":1', '"n":1,"\\u006e":1', '"n":1,"n":null', '"model":"a:b","model":"gan"'),
    # Unknown names.
    *('"unknown":1', '"":1', '"N":1', '" n":1', '"__class__":1', '"__proto__":{"n":1}', '"<script>":1', '"\\u0000":1'),
    *('"%s{0}${jndi:ldap://x}":1', f'"{"x" * 10_000}":1', ",".join(f'"x{number}":1' for number in range(1000))),
)
WRONG_LATENTS = named(
    *(f'"latents":{value}' for value in ("[]", "[[]]", "[[0.5]]", "[0.5]", "1", '"0.5"', '{"0":[0.5]}', '[["0.5"]]')),
    *(f'"latents":[[{value}]]' for value in ("true", "null", "NaN", "Infinity", "1e309", ",".join(["1e39"] * 64))),
    *(f'"latents":[[0.5]],{others}' for others in ('"seed":1', '"first":1', '"n":2')),
    '"latents":[[0.5],[0.5,0.5]]',
    *(f'"scale":{value}' for value in ("0", "17", "2.0", '"2"', "true", "NaN")),
    '"n":256,"scale":16',
)
WRONG_LABELS = (
    *('"ten"', '"<script>"', '"%s{0}${jndi:ldap://x}"', '"3\\u0000"', '" 3"', '"\\uff13"', '"BALANCED"', '""', '"3,4"'),
    *('"' + "x" * 65 + '"', "10", "-1", "9007199254740992", MANY_DIGITS, "3.0", "true", "NaN", '{"name":"3"}', "[]"),
    *('["3","ten"]', '["3",null]', '["3",false]', '["3",3.5]', '["3",["3"]]', '["3","balanced"]', '["balanced"]'),
    *("[" * 100 + '"3"' + "]" * 100, "[" + ",".join("3" * 4097) + "]", '"3","label":"4"'),
)
WRONG_CONTROLS = ("0", "-0.0", "1e-400", "-1", "10.5", "1e308", "1e309", "NaN", "Infinity", '"1"', "true", "[1]")
# Sampling options, for every operation that generates.
WRONG_CHOICES = named(
    *(f'"label":{value}' for value in WRONG_LABELS),
    *(f'"prior":{value}' for value in ('"uniform"', '"<script>"', '"normal\\u0000"', '"Normal"', '""', "0", "true")),
    '"prior":["normal"]',
    *(
        f'"model":"{model}","{control}":{value}'
        for (model, control), value in product((("vae", "temperature"), ("gan", "truncation")), WRONG_CONTROLS)
    ),
)
WRONG_FACTORS = named(*(f'"factor":{value}' for value in ("0", "1", "3", "-2", "2.0", '"2"', "true", "NaN", "[2]")))
WRONG_ENDS = named(
    *('"from_seed":-1', '"from_seed":9007199254740992', '"to_seed":"2"', '"to_seed":NaN'),
    *('"from_seed":1,"from_latent":[0.5]', '"to_latent":[0.5]', '"to_latent":[]', '"to_latent":[[0.5]]'),
    *('"to_latent":[1e400]', '"label":"3","from_label":"3"', '"to_label":"ten"', '"to_label":["3"]', '"n":1'),
    *(f'"steps":{value}' for value in ("1", "0", '"10"', "-10", "257", "99999999999999999999", '256,"scale":16')),
    *(f'"path":{value}' for value in ("1", '"spiral"', '""', '["lerp"]', '"lerp","path":"slerp"')),
)
# Members of a request of the Open Inference Protocol to `cgan.generate`.
_LABEL = '"parameters":{"seed":1},"inputs":[{"name":"label","datatype":%s,"shape":%s,"data":%s}]'
WRONG_TENSORS = named(
    *(_LABEL % ('"INT64"', shape, "[1,2]") for shape in ("[]", "[-2]", "[2,1]", "[0]", "[2147483647]", "2", '["2"]')),
    *(_LABEL % ('"INT64"', "[2]", data) for data in ("[1]", "[1,true]", "[1,2.5]", '[1,"2"]', "[1,NaN]", "[[1],2]")),
    *(_LABEL % ('"INT64"', "[2]", data) for data in ("[1,10]", "[-1,1]", f"[1,{MANY_DIGITS}]", "{}", '"12"', "null")),
    *(_LABEL % (datatype, "[2]", "[1,2]") for datatype in ('"INT32"', '"BYTES"', '""', "1", '"' + "X" * 65 + '"')),
    *('"inputs":{}', '"inputs":[]', '"inputs":[[]]', '"inputs":[{}]', '"inputs":[' + ",".join(["{}"] * 1000) + "]"),
    *(f'"parameters":{{"seed":{value}}}' for value in ("-1", "true", '"1"', "9007199254740992", "[]", "1.5")),
    *('"parameters":{"seed":1,"n":257}', '"parameters":{"seed":1,"first":9007199254740991,"n":2}', '"parameters":[]'),
    *('"parameters":{"seed":1,"sequence_id":1}', '"parameters":{"seed":1},"outputs":[{"name":"<script>"}]'),
    *('"parameters":{"seed":1},"id":1', '"parameters":{"seed":1},"id":"' + "x" * 257 + '"', '"unknown":1'),
)
_HEAD = (
    b'{"parameters":{"seed":1},"inputs":[{"name":"label","datatype":"INT64","shape":[2],'
    b'"parameters":{"binary_data_size":%d}}]}'
)
# The length that is given for the JSON, and the body.
WRONG_BINARY = (
    *((b"%d" % len(_HEAD % 16), _HEAD % 16 + behind) for behind in (b"", bytes(15), bytes(17), b"\xff" * 16)),
    *((b"%d" % len(_HEAD % size), _HEAD % size + bytes(16)) for size in (0, 8, 17, 2**40)),
    *((size, _HEAD % 16 + bytes(16)) for size in (b"", b"0", b"1", b"-1", b"1.5", b"1e3", b"x", b"9" * 400, b"99999")),
)
# Queries of `GET /interpolate`.
WRONG_QUERIES = named(
    *(f"from_seed={value}" for value in ("%2B1", "-1", "9007199254740992", "9" * 300, "%201", "1%0A", "1_0", "0x1")),
    *(f"from_seed={value}" for value in ("%D9%A1", "%EF%BC%91", "1e3", "1.0", "", "nan", "true", "1%00", "%FF")),
    *("from_seed=1&from_seed=1", "from_seed=1&from%5Fseed=2", "from_seed=1&from_latent=0.5"),
    *("unknown=1", "unknown", "=1", "Steps=5", "steps[]=5", "steps=5;steps=6"),
    *(f"steps={value}" for value in ("1", "257", "2.0", "many", "99999999999999999999", "256&scale=16")),
    *("scale=0", "scale=17", "path=spiral", "path=%ED%A0%80", "model=", "model=" + "x" * 65),
    *(f"from_latent={value}" for value in ("", "a,b", "nan", "1e999", "inf,inf", "1,,2", "0.5", "1,%202", "[1,2]")),
    *("model=vae&to_latent=1_0" + ",0" * 15, "model=vae&to_latent=%D9%A1" + ",0" * 15),
    "from_latent=" + ",".join("1" * 10_000),
    *(f"from_latent={'1' * 30_000}{end}" for end in ("x", ".", "e", "e+")),
    *(f"label={value}" for value in ("ten", "", "balanced", "3,4", "3&label=3", "3%00", "%EF%BC%93", "x" * 65)),
    *("label=3&from_label=3", "to_label=ten", "prior=uniform", "prior="),
    *(f"model=vae&temperature={value}" for value in ("0", "-1", "nan", "inf", "%EF%BC%91", "1e")),
    *(f"truncation={value}" for value in ("0.0", "1e999", "0." + "9" * 300, "true", "1_0")),
    *("&".join(f"x{number}=1" for number in range(1000)), "&" * 10_000 + "unknown=1"),
)
