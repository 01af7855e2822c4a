#pragma version 0.4.3
#pragma evm-version cancun
"""
@title DataProtector
@license Apache-2.0
@notice Registers protected data together with the schema of its content.
"""

interface DatasetRegistry:
    def createDataset(
        _datasetOwner: address, _datasetName: String[256], _datasetMultiaddr: Bytes[1024], _datasetChecksum: bytes32
    ) -> address: nonpayable


event DatasetSchema:
    dataset: indexed(address)
    schema: String[SCHEMA_CAP]


SCHEMA_CAP: constant(uint256) = 8192

datasetRegistry: public(immutable(address))


@deploy
def __init__(dataset_registry: address):
    datasetRegistry = dataset_registry


@external
def createDatasetWithSchema(
    _datasetOwner: address,
    _datasetName: String[256],
    _datasetSchema: String[SCHEMA_CAP],
    _datasetMultiaddr: Bytes[1024],
    _datasetChecksum: bytes32,
) -> address:
    """
    @notice Register a dataset and publish its schema in one transaction; anybody may, for any owner.
    @param _datasetName At most 256 bytes.
    @param _datasetSchema Compact JSON, a nested map of types; at most 8,192 bytes.
    @param _datasetMultiaddr At most 1,024 bytes.
    @param _datasetChecksum SHA-256 of the encrypted content.
    @return The dataset's address.
    """
    dataset: address = extcall DatasetRegistry(datasetRegistry).createDataset(
        _datasetOwner, _datasetName, _datasetMultiaddr, _datasetChecksum
    )
    log DatasetSchema(dataset=dataset, schema=_datasetSchema)
    return dataset
