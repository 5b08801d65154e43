"""Order to cash: an order book run against a CRM, an ERP, a payment gateway and a shipping provider."""
