"""The connector that runs beside the customer's Proton Mail Bridge."""
