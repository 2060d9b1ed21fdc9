"""The connector that runs beside the customer's Proton Mail Bridge."""

__version__ = "0.1.0"
