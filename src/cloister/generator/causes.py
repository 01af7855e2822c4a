"""Named causes in plain words: what each means for whoever wrote or ran the iApp, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Meaning:
    """``text`` says what happened, ``advice`` what to do: one or two sentences each."""

    text: str
    advice: str


_OURS = "This is the platform's fault, not the iApp's."
_AGAIN = "The task is given to another worker while its deadline lasts; after that, claim it to be refunded."

MEANINGS = MappingProxyType(
    {
        # --- the iApp itself ---
        "APP_COMPUTE_FAILED": Meaning(
            "The iApp ended with an exit code other than 0.",
            "Read what it printed (stderr); in production those lines are shown only where the owners allow it.",
        ),
        "APP_COMPUTE_TIMEOUT": Meaning(
            "The iApp ran longer than the seconds in its manifest.",
            "Make it quicker, or raise resources.seconds in iapp.toml and run it in a category that lasts as long.",
        ),
        "APP_MEMORY_EXCEEDED": Meaning(
            "The iApp used more memory than its manifest asks for.",
            "Read data in pieces, or raise resources.memory_mib in iapp.toml.",
        ),
        "APP_DISK_EXCEEDED": Meaning(
            "The iApp filled its disk: /tmp and /iexec_out are as large as its manifest asks for.",
            "Write less, or raise resources.disk_mib in iapp.toml.",
        ),
        "APP_PROCESSES_EXCEEDED": Meaning(
            "The iApp started more processes and threads than its manifest asks for.",
            "Limit its workers (n_jobs, OMP_NUM_THREADS), or raise resources.processes in iapp.toml.",
        ),
        "APP_OUTPUT_FILES_EXCEEDED": Meaning(
            "The iApp left more files than a result may have (1000).",
            "Pack many small files into one archive or table.",
        ),
        "APP_OUTPUT_SIZE_EXCEEDED": Meaning(
            "The result is larger than 50 MiB, or than the data's owner allows.",
            "Write less: an aggregate instead of rows, a compressed file, fewer progress messages.",
        ),
        "APP_OUTPUT_NOT_A_FILE": Meaning(
            "In /iexec_out lies a link, a socket or something else that is no plain file.",
            "Copy the file itself there.",
        ),
        "APP_OUTPUT_NAME_REFUSED": Meaning(
            "A result file has a name that may not be: one of the enclave's own, not printable, or folders too deep.",
            "Use short plain names; receipt.cose is the enclave's.",
        ),
        "APP_RUNTIME_MISMATCH": Meaning(
            "The enclave does not have the runtime that the manifest asks for.",
            'Ask for runtime = "python3" (whichever version is there), or for a version that the workers have.',
        ),
        # --- its result ---
        "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND": Meaning(
            "The iApp ended well but left no usable computed.json in /iexec_out.",
            "Write results with iapp.write(), which keeps that file right, or write it yourself: "
            '{"deterministic-output-path": "/iexec_out/result.txt"}.',
        ),
        "POST_COMPUTE_RESULT_FILE_NOT_FOUND": Meaning(
            "computed.json names a file that is not in /iexec_out.",
            "Write that file, or name the one that is there in deterministic-output-path.",
        ),
        "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED": Meaning(
            "The request wants a callback to a contract, and the iApp gave no callback data.",
            "Call iapp.callback(data), or put callback-data into computed.json.",
        ),
        "POST_COMPUTE_TOO_LONG_RESULT_FILE_NAME": Meaning(
            "The name of a result file is longer than 31 characters.",
            "Give it a shorter name; the limit is for each part of a path.",
        ),
        "POST_COMPUTE_DROPBOX_UPLOAD_FAILED": Meaning(
            "The request asks for its result to be stored in Dropbox, which this network does not serve.",
            'Leave iexec_result_storage_provider out, or set it to "ipfs".',
        ),
        "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED": Meaning(
            "The enclave had no room for the archive of the result.",
            "Write less, or run it on a worker with more memory.",
        ),
        "POST_COMPUTE_ENCRYPTION_FAILED": Meaning(
            "The result could not be sealed to the requester's key.", "Write less if it is large, and try again."
        ),
        "POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING": Meaning(
            "The result must be sealed, and the requester has no result key at the SMS.",
            "Push one: the SDK does it by itself; other clients push it as the secret of their result.",
        ),
        "POST_COMPUTE_MALFORMED_ENCRYPTION_PUBLIC_KEY": Meaning(
            "The requester's result key at the SMS is not a key.", "Push another one and make a new request."
        ),
        "POST_COMPUTE_FAILED_UNKNOWN_ISSUE": Meaning(
            "The enclave could not make a result of what the iApp left.", f"{_OURS} {_AGAIN}"
        ),
        # --- what it was given ---
        "APP_IMAGE_DOWNLOAD_FAILED": Meaning(
            "The iApp's bundle or image did not come from storage in time.", f"{_OURS} {_AGAIN}"
        ),
        "APP_IMAGE_REFUSED": Meaning(
            "What storage has is not the iApp that the chain names, or no bundle or image that may run.",
            "Build and deploy it again; cloister iapp verify compares a deployed iApp with its source.",
        ),
        "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED": Meaning(
            "The protected data did not come from storage.",
            "See that its storage is up (cloister data show ADDRESS says where it lies), and run again.",
        ),
        "PRE_COMPUTE_INVALID_DATASET_CHECKSUM": Meaning(
            "What storage has is not the protected data that the chain names.",
            "Its owner must store it again, or protect it anew.",
        ),
        "PRE_COMPUTE_DATASET_DECRYPTION_FAILED": Meaning(
            "The protected data does not open with the key that the SMS has for it.",
            "Its owner must protect it anew, or push the right key.",
        ),
        "PRE_COMPUTE_SAVING_PLAIN_DATASET_FAILED": Meaning(
            "The enclave had no room for the opened data.", "Run it on a worker with more memory."
        ),
        "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED": Meaning(
            "An input file is not to be had: missing, too large, refused, or not at a public address.",
            "Open its URL from elsewhere; workers fetch from public addresses only.",
        ),
        "PRE_COMPUTE_INPUT_FILE_DECRYPTION_FAILED": Meaning(
            "A private input file does not open with the key that the request gave: another key, or changed on its way.",
            "Run again with private_files (--private-file), which seals the files anew and pushes their key.",
        ),
        "PRE_COMPUTE_FAILED_UNKNOWN_ISSUE": Meaning("The enclave failed before the iApp began.", f"{_OURS} {_AGAIN}"),
        # --- the enclave and its session ---
        "TEE_SESSION_GENERATION_FAILED": Meaning(
            "The enclave got no session from the SMS, or one that was not made for it.", f"{_OURS} {_AGAIN}"
        ),
        "TEE_SESSION_REFUSED": Meaning(
            "The SMS refused to release keys: a grant, a policy, a purpose or the enclave's evidence does not fit.",
            "The message says which. Common: the owner's policy allows other purposes than the request names, or purposes "
            "in iapp.toml does not hold it; the grant was revoked; the enclave is of a kind that the owner does not trust.",
        ),
        "SANDBOX_FAILED": Meaning(
            "The iApp's sandbox could not be built.", f"{_OURS} cloister doctor tells what a machine can do."
        ),
        "NETWORK_REFUSED": Meaning(
            "The iApp names hosts to connect to, and this worker's operator runs no such iApps.",
            "Choose a workerpool whose workers do.",
        ),
        "ENCLAVE_CHANNEL_BROKEN": Meaning("Enclave and worker did not understand each other.", f"{_OURS} {_AGAIN}"),
        "ENCLAVE_TIMEOUT": Meaning(
            "The enclave was not done at the task's deadline.",
            "Choose a category that lasts longer, or make the iApp quicker.",
        ),
        "ENCLAVE_DIED": Meaning(
            "The enclave ended by itself: its machine may have run out of memory.",
            f"{_AGAIN} Less memory in iapp.toml may help.",
        ),
        "ENCLAVE_ABORTED": Meaning(
            "The task was called off: another worker's result counted, or its time was over.", "Nothing is to be done."
        ),
        # --- the worker and its scheduler ---
        "WORKER_LOST": Meaning("The worker gave no more sign of life.", _AGAIN),
        "WORKER_STOPPED": Meaning("The worker was stopped and gave the task back.", _AGAIN),
        "WORKER_FAILED": Meaning("The worker failed in a way that it has no name for.", f"{_OURS} {_AGAIN}"),
        "RESULT_LOST": Meaning("The worker's disk lost the sealed result.", _AGAIN),
        "JOURNAL_DAMAGED": Meaning("The worker's journal lost the sealed result.", _AGAIN),
        "TASK_ENDED": Meaning("The chain says that the task is over.", "Look at the task: cloister iapp debug TASK."),
        "TASK_COMPLETED_BY_OTHERS": Meaning("Other workers completed the task.", "Nothing is to be done."),
        "ANOTHER_RESULT_WON": Meaning(
            "Other workers agreed on another result.",
            "If it happens often, the iApp's result is not deterministic: name the file that is, with iapp.deterministic().",
        ),
        "CONTRIBUTION_REFUSED": Meaning("The chain took no contribution of this worker.", _AGAIN),
        "CONTRIBUTION_TIMEOUT": Meaning("The worker's contribution came too late.", "Choose a longer category."),
        "CONTRIBUTION_REJECTED": Meaning(
            "The task went on without this worker's contribution.", "Nothing is to be done."
        ),
        "REVEAL_REFUSED": Meaning("The chain took no reveal of this worker.", _AGAIN),
        "FINAL_DEADLINE_REACHED": Meaning(
            "The workers came to no result in time.", "Claim the task to be refunded: cloister task claim TASK."
        ),
        "DEAL_GONE": Meaning("The chain has no such deal any more.", "Make the request again."),
        "APP_REFUSED": Meaning(
            "What storage has is not the iApp that the chain names.", "Its author must upload it again."
        ),
        "APP_UNREACHABLE": Meaning(
            "The iApp's bundle or image is nowhere to be had.", "Its author must upload it again, to public storage."
        ),
        "DATA_UNREADABLE": Meaning(
            "The protected data does not open with its key.", "Its owner must protect it anew, or push the right key."
        ),
        # --- refusals of the SMS ---
        "PURPOSE_MISSING": Meaning(
            "The data's owner allows certain purposes, and the request names none.", "Run it with --purpose."
        ),
        "PURPOSE_REFUSED": Meaning(
            "The data's owner does not allow the purpose that the request names.",
            "Ask the owner for access for this purpose, or name one that is allowed.",
        ),
        "APP_PURPOSE_REFUSED": Meaning(
            "The iApp is not made for the purpose that the request names.",
            "Its author adds it to purposes in iapp.toml and deploys again; the owner then grants access to that app.",
        ),
        "NO_LONGER_VALID": Meaning("The owner's access policy has ended.", "Ask the owner to grant access anew."),
        "ORDER_CLOSED": Meaning(
            "The grant was revoked, or used as often as it allows.", "Ask the owner for another one."
        ),
        "ORDER_SIGNATURE": Meaning(
            "The grant is not signed by the data's owner of today.", "Ask today's owner to grant access."
        ),
        "POLICY_MISSING": Meaning(
            "The grant names an access policy that the SMS does not have.", "Its owner must push the policy again."
        ),
        "RESTRICTION": Meaning(
            "The grant is for another app, workerpool or requester.", "Ask its owner for a fitting one."
        ),
        "DATASET_UNKNOWN": Meaning("The chain has no such protected data.", "Check its address: cloister data show."),
        "DATASET_KEY_MISSING": Meaning(
            "The SMS has no key for the protected data.", "Its owner must push the key, or protect the data anew."
        ),
        "DEAL_NOT_TEE": Meaning(
            "The orders do not ask for an enclave, so nothing is released.", "Make the orders with a TEE tag."
        ),
        "PARAMS_REFUSED": Meaning("The parameters of the request do not read.", "Make the request again."),
        "REQUESTER_SECRET_MISSING": Meaning(
            "The request names a secret that its requester did not push to the SMS.",
            "Push it, or run with --secret N=@FILE, which does it.",
        ),
        "RESULT_KEY_MISSING": Meaning(
            "The result must be sealed, and the SMS has no result key of its beneficiary.",
            "Push one: the SDK does it by itself when it makes a request.",
        ),
        "RESULT_KEY_MALFORMED": Meaning(
            "The beneficiary's result key at the SMS is not a key.", "Push another one and make a new request."
        ),
        "RELEASE_TOO_LARGE": Meaning(
            "Parameters, secrets and keys of the task are too large together.", "Use fewer or shorter ones."
        ),
        "BULK_INDEX_MISSING": Meaning("The bulk request has no slice for this task.", "Prepare the request again."),
        "BULK_NOT_SERVED": Meaning("This SMS does not serve bulk requests.", "Run on one protected data at a time."),
        "BULK_ROOT_MALFORMED": Meaning("The list of the bulk's slices does not read.", "Prepare the request again."),
        "BULK_SLICE_MALFORMED": Meaning("A slice of the bulk does not read.", "Prepare the request again."),
        "BULK_WITH_DATASET": Meaning(
            "The request is for a bulk and for one protected data at once.", "Choose one of the two."
        ),
    }
)
"""Cause -> what it means. Holds every cause of ``enclave.causes`` and every final code of schedulers."""


def explain(cause: str) -> Meaning | None:
    """What a cause means; None for one that has no name here."""
    return MEANINGS.get(cause.upper().replace("-", "_"))
