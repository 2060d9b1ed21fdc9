"""Proton Mail by a connector that the customer runs beside Proton Mail Bridge."""
