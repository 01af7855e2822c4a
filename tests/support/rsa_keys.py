"""RSA keys of 4,096 bits for test authorities, fixed because making one takes a second. They sign nothing outside of tests."""

from __future__ import annotations

from base64 import b64decode
from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa

_EXPONENT = 65537
_PRIMES = {
    "root": (
        (
            "9xVWMZdzd1Gb4AOg1Hpsxk9ELBzTPOh+UKGwE3mKh32JFs7QFXqCQUQ3ScUKEHjDPvH5L55wVZmpyabvGYniFHBSQkqG1QoUkZ2w"
            "70g6nWnX0IgwP4pAs9xKNSO6fLt2FUzuybxutowWw+xJOktGQJ/6WN0JjoB+HYqRjUJj4M/u245bYRpWaZ0lIZO2j5K9MfMBhg7G"
            "7YhWNr7REebF9B83p5gYjgh5uzapcxkxtucKF1udrStorOI972N+Ps+fPzKfjQPYND8d8H9L0FdiDReEMW0uuek48faMDXW4RjOq"
            "mv6Zb6W7O/Cg3FFCI++YyHCXJ8JVhz/l+jrm8EnFGw=="
        ),
        (
            "3Sxteok7duf5qr/G6cgQBwDRQnyCq3Op4VWApgzfNShz7/Zp/KjFBoL5Izw7dPK3ZJX2ecFPoS8nkd14lsdgDwTjMeYwQC0RqAVp"
            "BE+M1Hm1j+mVI7SH7xR74czbdJ3EsRlEIJgMsQN/PcEQomld+F/KgOS9p+yXpV1nSd3iwqoulzx/APaSGhnTX/GviFWwmxpNUn2v"
            "y1fPpyvjGficcE2eKi4PzNilczBuqAKMBOBx4Dze7zCc6IqkYkGzIpDMHQqi6ZNZ6WWi9euNElOWvN0UA270T+zIzJoVNUy7u/XT"
            "bQGCUvyglwKXAmQ4FHy3+zFJSS9d/WMGAtn4x/O6kQ=="
        ),
    ),
    "issuer": (
        (
            "0wA+KmWu9Kr58tg7jVRKgQ3qTCNig4Q+BjurHgCyFusUqGs20UBngG79fMWadslrixrRegsksGHIk1Fqh85JOR7LoanbKSHddy4c"
            "EDUXkIEKMqvIIjs5hS29v0At5tqmoFUFcGhqH0s4gLZuPx0/FkZJw4cQXpZLkTn6+WOh2LxXK6YJRYvG7kzStlmFkVuCN5aUbK+p"
            "FbnQYHY0PRy7RPr2mY9YfPF3MGNCRc0OLzrfL9q69fm5vL/ZRRtyuU5es7bzEwxaI0+kYSYAfVyVWobXv2o6uWIAWn/QsE2h/lVD"
            "lhhJE5dW9Z8N1R9s0RQJFIoot3Pjocr98r/izCaUAQ=="
        ),
        (
            "zq8BPLcnjjRqxO8Aq9lEYcTMAziyvVHjW/4rnTopFiPlSrf5gHadoxNLW1SZCsqbFDIumNp2L/jG7TUyZ1whzzayRXhskNl+Eirx"
            "vl2jR620JpfqRyuuYIBaGrkJIixcbGesnCW8X43Cq2vJCbKEmib+I39P2K7HYGVSRdhueEVIXes23UNQEt2I5hcfwlaAX7UveBvC"
            "J7slUb5QpTvxawZI1VxnCYNWh4SzqAS6L+bnuZaYd0xYR8c/nA0Gxm8vsCyUgcM7s06tigkczs9MYZZ3Rq0o87MCZvLNzZZGUAYL"
            "yjGdNXk43PszjJT5rjUYtQ0M+/CJkfSvUe5hqUuZxw=="
        ),
    ),
    "stranger": (
        (
            "+gGQ6usyZvDVvm/W4OqsnqiLx7D4s3pX2uDliv9/Lsx9utG8g94BBTjmxyAPW0aOThW1FytAYvek/U/Gm00mp5x6Kt3XzE9bJ73b"
            "TxwV5j7kUZzR3PIg1Y8oegLQbntbtH/kDAgEG5sdui6Qs1fh7ZUQIVatCrU9bjHfBzoZ9HNTXZGmYkgi/wPAyrJZifopr+GxwDN8"
            "yJSPJZo297oPCoxjVSKa3NVHTVbE/kji4Xr3uTjSYJaMVkB51YV1BPS+cubsOVHZbCzW/DQrVWUbi+dy/t+dwLlh6grD5Tn3i2i/"
            "HxCwfoVOU0RNnKwnTnOERZFUM/KO9tpBLpQzuV/TAQ=="
        ),
        (
            "9732c9eTajvTRlwlnw7kzMKqUMUnc/HBSNRE1aJ7H9SlvShEAiLvOgDXbHPB/4XKv+r9F3A9AYlyApiSgrH5pw4M61EINLTWilwB"
            "iGvisjyM0y+cIOm2GzPemZ7qAHn96e4tjDBF2kpl9vtMvI52R/CB6mnmOyjD3iUiEaXtEUfs/QlRJazapVwhsVa8gKCCHktCpPP5"
            "67A2DuU7LPHVXW2/MQduywPh4islCPRYPXyGnbLLDlM9834nAp0EzWv29EMnS7SnOjRkf1hN4JRNd0YoGQifBcSsXF5SDl7se+qt"
            "ufmos0KVd/54ktymjRU/DJ8cND4vhW9PqrBPqcCKwQ=="
        ),
    ),
}


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """One of the keys ``root``, ``issuer`` and ``stranger``."""
    p, q = (int.from_bytes(b64decode(text), "big") for text in _PRIMES[name])
    d = rsa.rsa_recover_private_exponent(_EXPONENT, p, q)
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, p),
        dmq1=rsa.rsa_crt_dmq1(d, q),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(_EXPONENT, p * q),
    )
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)  # made once and checked then
